// Notices that another rank has died or hangs, and ends this one.
//
// MPI says nothing of the kind: a sum over ranks of which one is gone just never ends. So each rank keeps a
// TCP connection to rank 0: when a process dies, its system closes the connection, and rank 0 tells the
// others whom it lost. A few times a second each end says where it stands: one that falls silent is noticed.
// Where one waits longer than it has patience, rank 0 looks for the rank that has made the fewest calls
// (calls are the same on all ranks), and names it if it has done nothing for so long. One that still counts
// pieces of work (core/pieces_done.h) is slow, and waited for.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "src/distributed/outbox.h"

namespace flasheva {

class PeerWatch {
 public:
  // Gives every rank the bytes of rank 0.
  using Broadcast = std::function<void(std::span<char>)>;

  // Returns when all ranks are connected to rank 0. Error{other} if that fails.
  PeerWatch(int rank, int ranks, const Broadcast& broadcast);
  // Without farewell() before, this rank counts as one that died.
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  // A rank that says nothing for so long counts as lost.
  void set_timeout(double seconds) { timeout_seconds_ = seconds; }

  // So does one that does nothing for so long while this one waits in a call; `during`: what ranks do now.
  void set_patience(double seconds, const std::string& during);

  // Around every call that may have to wait for other ranks, one after another.
  void begin_call();
  void end_call() { in_call_since_ = never; }

  // This rank is done; returns when every rank it is connected to is, too.
  void farewell();

 private:
  static constexpr double endless = std::numeric_limits<double>::infinity(), never = endless;

  enum class Kind : std::int32_t { standing, farewell, lost };
  struct Message {
    Kind kind = Kind::standing;
    std::int64_t calls = 0, pieces = 0;  // begun, done
    double waits_seconds = -endless;     // in the call that has not ended, if any
    double patience_seconds = endless;
    char text[400] = {};  // what it does; of a lost rank, what happened
  };
  struct Peer {
    int socket = -1;
    std::string name;  // "rank 2 (process 4711 on HOST)"
    Message last;
    double heard_at = 0, got_on_at = 0;  // seconds of a clock
    bool said_farewell = false;
    Outbox unsent;
    std::string received;  // the beginning of a message
  };
  enum class State { watching, leaving, gone };

  void meet(int ranks, const Broadcast& broadcast);
  void watch();
  void change(State state);
  void forgive(double seconds);
  void hear(Peer& peer);
  void note(Peer& peer, const Message& message);
  void check_silence();
  void check_patience();
  Message standing();
  void tell_all(const Message& message);
  bool all_said_farewell() const;
  bool all_is_sent() const;
  [[noreturn]] void end(const std::string& text);

  const int rank_;
  std::vector<Peer> peers_;  // rank 0 knows all, itself without a socket; every other rank knows rank 0
  std::atomic<State> state_ = State::watching;
  std::atomic<double> timeout_seconds_ = endless, in_call_since_ = never;
  std::atomic<std::int64_t> calls_ = 0;
  std::mutex mutex_;  // of the two below
  double patience_seconds_ = endless;
  std::string during_;
  int wake_ = -1;  // an event that interrupts the watch when the state changes
  std::thread thread_;
};

}  // namespace flasheva
