// Notices that another rank has died or hangs, and ends this one.
//
// MPI says nothing of the kind: a sum over ranks of which one is gone just never ends. So each rank keeps a
// TCP connection to rank 0: when a process dies, its system closes the connection, and rank 0 tells the
// others whom it lost. A few times a second each end says how many calls it has made (calls are the same on
// all ranks): one that stands still is noticed, and the one that keeps the others waiting can be named.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
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

  // This rank has made so many calls.
  void set_progress(std::int64_t calls) { progress_ = calls; }

  // Some rank has kept this one waiting for so long that all end. Rank 0 names the slowest.
  [[noreturn]] void give_up(double seconds);

  // This rank is done; returns when every rank it is connected to is, too.
  void farewell();

 private:
  struct Peer {
    int socket = -1;
    std::string name;  // "rank 2 (process 4711 on HOST)"
    std::int64_t progress = 0;
    double heard_at = 0;  // seconds of a clock
    bool said_farewell = false;
    Outbox unsent;
  };
  enum class State { watching, leaving, giving_up, gone };
  enum class Kind : std::int32_t { progress, farewell, waiting, lost };
  struct Message {
    Kind kind;
    std::int64_t progress;
    char text[240];
  };

  void meet(int ranks, const Broadcast& broadcast);
  void watch();
  void change(State state);
  void hear(std::size_t peer);
  void check_silence();
  void complain();
  void tell(Peer& peer, Kind kind, const std::string& text = "");
  void tell_all(Kind kind, const std::string& text = "");
  const Peer& slowest();
  bool all_said_farewell() const;
  bool all_is_sent() const;
  [[noreturn]] void end(const Peer& lost, const std::string& what);
  [[noreturn]] void end(const std::string& text) const;

  const int rank_;
  std::vector<Peer> peers_;  // rank 0 knows all, itself without a socket; every other rank knows rank 0
  std::atomic<std::int64_t> progress_ = 0;
  std::atomic<State> state_ = State::watching;
  std::atomic<double> timeout_seconds_ = std::numeric_limits<double>::infinity();
  std::atomic<double> waited_seconds_ = 0;
  int wake_ = -1;  // an event that interrupts the watch when the state changes
  std::thread thread_;
};

}  // namespace flasheva
