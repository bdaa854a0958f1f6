#include "src/distributed/peer_watch.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/core/pieces_done.h"

namespace flasheva {

namespace {

constexpr int beat_ms = 250;  // how often a rank says where it stands
constexpr double standstill_seconds = 1;
constexpr int meeting_seconds = 60;

// IPv6's, or IPv4's in its first bytes: family and port stand at the same place in both.
using Address = sockaddr_in6;

// Where rank 0 listens, and the number by which it knows its ranks.
struct Meeting {
  std::uint64_t secret = 0;
  std::int32_t addresses = 0;
  Address address[32] = {};
};

// What a rank says of itself when it comes.
struct Introduction {
  std::uint64_t secret = 0;
  std::int32_t rank = 0, process = 0;
  char host[128] = {};
};

[[noreturn]] void cannot_meet(const char* what) {
  fail(ExitCode::other, "ranks cannot watch each other: {}: {}; they need TCP between their machines", what,
       std::strerror(errno));
}

bool send_all(int socket, const void* data, std::size_t bytes) {
  return ::send(socket, data, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}
bool receive_all(int socket, void* data, std::size_t bytes) {
  return ::recv(socket, data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
}

void set_time_limit(int socket, int seconds) {
  const timeval limit{seconds, 0};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

// Messages go at once. The system does not watch the connection for us: its keepalive waits for as long as a
// beat is unanswered, and a network that comes back within the timeout has done no harm.
void prepare(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  set_time_limit(socket, 5);
}

int open_socket(int family) { return ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0); }

// Hears IPv6 and IPv4, or IPv4 alone on a machine that knows no other. `own` becomes any of its addresses and
// the port.
int open_listener(Address& own, int ranks) {
  const int off = 0;
  own.sin6_family = AF_INET6;
  int listener = open_socket(AF_INET6);
  if (listener < 0)
    listener = open_socket(own.sin6_family = AF_INET);
  else
    ::setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  socklen_t length = sizeof(own);
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&own), length) != 0 ||
      ::listen(listener, ranks) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&own), &length) != 0)
    cannot_meet("listen");
  return listener;
}

Meeting meeting_at(in_port_t port) {
  Meeting meeting;
  ifaddrs* interfaces = nullptr;
  if (::getrandom(&meeting.secret, sizeof(meeting.secret), 0) != sizeof(meeting.secret) ||
      ::getifaddrs(&interfaces) != 0)
    cannot_meet("getifaddrs");
  for (const ifaddrs* i = interfaces; i != nullptr && meeting.addresses < std::ssize(meeting.address);
       i = i->ifa_next) {
    const int family = i->ifa_addr == nullptr ? AF_UNSPEC : i->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    Address& address = meeting.address[meeting.addresses];
    std::memcpy(&address, i->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    address.sin6_port = port;
    if (family == AF_INET || !IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr)) ++meeting.addresses;
  }
  ::freeifaddrs(interfaces);
  return meeting;
}

Introduction introduction(std::uint64_t secret, int rank) {
  Introduction own;
  own.secret = secret;
  own.rank = rank;
  own.process = ::getpid();
  ::gethostname(own.host, sizeof(own.host) - 1);
  return own;
}

std::string name_of(const Introduction& peer) {
  return fmt::format("rank {} (process {} on {})", peer.rank, peer.process, peer.host);
}

// The next rank that comes and knows the secret; whoever does not is sent away.
std::pair<int, Introduction> accept_rank(int listener, const Introduction& own) {
  while (true) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) cannot_meet("accept");
    prepare(socket);
    Introduction peer;
    if (receive_all(socket, &peer, sizeof(peer)) && peer.secret == own.secret &&
        send_all(socket, &own, sizeof(own)))
      return {socket, peer};
    ::close(socket);
  }
}

// Tries every address of rank 0: some are of networks that this machine is not in, or its own loopback.
std::pair<int, Introduction> connect_to_first(const Meeting& meeting, int rank) {
  const Introduction own = introduction(meeting.secret, rank);
  for (int i = 0; i < meeting.addresses; ++i) {
    const Address& where = meeting.address[i];
    const int socket = open_socket(where.sin6_family);
    if (socket < 0) continue;  // this machine does not know the family
    prepare(socket);
    Introduction first;
    if (::connect(socket, reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0 &&
        send_all(socket, &own, sizeof(own)) && receive_all(socket, &first, sizeof(first)) &&
        first.secret == meeting.secret)
      return {socket, first};
    ::close(socket);
  }
  cannot_meet("connect to rank 0");
}

}  // namespace

PeerWatch::PeerWatch(int rank, int ranks, const Broadcast& broadcast)
    : rank_(rank), peers_(static_cast<std::size_t>(rank == 0 ? ranks : 1)) {
  meet(ranks, broadcast);
  wake_ = ::eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { watch(); });
}

PeerWatch::~PeerWatch() {
  if (thread_.joinable()) {
    change(State::gone);
    thread_.join();
  }
  for (const Peer& peer : peers_)
    if (peer.socket >= 0) ::close(peer.socket);
  ::close(wake_);
}

void PeerWatch::set_patience(double seconds, const std::string& during) {
  const std::lock_guard lock(mutex_);
  patience_seconds_ = seconds;
  during_ = during;
}

void PeerWatch::begin_call() {
  ++calls_;
  in_call_since_ = seconds_now();
}

void PeerWatch::farewell() {
  change(State::leaving);
  thread_.join();
}

void PeerWatch::change(State state) {
  state_ = state;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof(one));
}

void PeerWatch::meet(int ranks, const Broadcast& broadcast) {
  Meeting meeting;
  int listener = -1;
  if (rank_ == 0) {
    Address own{};
    listener = open_listener(own, ranks);
    meeting = meeting_at(own.sin6_port);
  }
  broadcast({reinterpret_cast<char*>(&meeting), sizeof(meeting)});
  if (rank_ != 0) {
    const auto [socket, first] = connect_to_first(meeting, rank_);
    peers_[0].socket = socket;
    peers_[0].name = name_of(first);
    return;
  }
  set_time_limit(listener, meeting_seconds);
  const Introduction own = introduction(meeting.secret, 0);
  peers_[0].name = name_of(own);
  for (int come = 1; come < ranks; ++come) {
    const auto [socket, introduced] = accept_rank(listener, own);
    Peer& peer = peers_.at(static_cast<std::size_t>(introduced.rank));
    peer.socket = socket;
    peer.name = name_of(introduced);
  }
  ::close(listener);
}

void PeerWatch::watch() {
  std::vector<pollfd> sockets;
  for (const Peer& peer : peers_) sockets.push_back({peer.socket, POLLIN, 0});  // -1 is passed over
  sockets.push_back({wake_, POLLIN, 0});
  bool said_farewell = false;
  double beat_at = 0, awake_at = seconds_now();
  for (Peer& peer : peers_) peer.heard_at = peer.got_on_at = awake_at;
  while (state_ != State::gone) {
    ::poll(sockets.data(), sockets.size(), beat_ms);
    const double now = seconds_now(), asleep = now - std::exchange(awake_at, now);
    if (asleep > standstill_seconds) forgive(asleep);
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      if (sockets[i].revents != 0) hear(peers_[i]);
      if (peers_[i].said_farewell) sockets[i].fd = -1;
      peers_[i].unsent.flush(peers_[i].socket);
    }
    check_silence();
    if (rank_ == 0) check_patience();
    if (state_ == State::leaving && !said_farewell) {
      Message farewell = standing();
      farewell.kind = Kind::farewell;
      tell_all(farewell);
      said_farewell = true;
      sockets.back().fd = -1;
    }
    // Nothing after a farewell: a connection closed with words unread takes those before with it.
    if (!said_farewell && seconds_now() - beat_at > 1e-3 * beat_ms) {
      tell_all(standing());
      beat_at = seconds_now();
    }
    if (said_farewell && all_said_farewell() && all_is_sent()) return;
  }
}

// This process itself stood still, with its whole job or alone, and could not hear the others meanwhile.
void PeerWatch::forgive(double seconds) {
  for (Peer& peer : peers_) {
    peer.heard_at += seconds;
    peer.got_on_at += seconds;
  }
}

// What there is of a message, or of its rest.
void PeerWatch::hear(Peer& peer) {
  Message message;
  const ssize_t bytes = ::recv(peer.socket, &message, sizeof(message) - peer.received.size(), MSG_DONTWAIT);
  if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (bytes <= 0) end(peer.name + " died");
  peer.received.append(reinterpret_cast<const char*>(&message), static_cast<std::size_t>(bytes));
  if (peer.received.size() < sizeof(message)) return;
  std::memcpy(&message, peer.received.data(), sizeof(message));
  peer.received.clear();
  if (message.kind == Kind::lost) end(message.text);
  if (message.kind == Kind::farewell) peer.said_farewell = true;
  note(peer, message);
}

void PeerWatch::note(Peer& peer, const Message& message) {
  peer.heard_at = seconds_now();
  if (message.calls != peer.last.calls || message.pieces != peer.last.pieces) peer.got_on_at = peer.heard_at;
  peer.last = message;
}

void PeerWatch::check_silence() {
  for (const Peer& peer : peers_) {
    const double silent = seconds_now() - peer.heard_at;
    if (peer.socket >= 0 && !peer.said_farewell && silent > timeout_seconds_)
      end(fmt::format("{} has given no sign of life for {:.0f} s", peer.name, silent));
  }
}

// Of those that are equally far, the rank that has done nothing for longest. Others are heard of later than
// this one: who has long waited for a call may be through it by now, and keeps only those waiting that are
// further.
void PeerWatch::check_patience() {
  note(peers_[0], standing());
  const auto [slowest, fastest] =
      std::minmax_element(peers_.begin(), peers_.end(), [](const Peer& a, const Peer& b) {
        return std::pair(a.last.calls, a.got_on_at) < std::pair(b.last.calls, b.got_on_at);
      });
  const double idle = seconds_now() - slowest->got_on_at;
  for (const Peer& peer : peers_) {
    const Message& waiting = peer.last;
    if (waiting.calls > slowest->last.calls &&
        std::min(waiting.waits_seconds, idle) > waiting.patience_seconds)
      end(fmt::format("{} has done nothing for {:.0f} s, during {}, and others wait for it", slowest->name,
                      idle, waiting.text));
  }
  const bool all_wait = std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) {
    return peer.last.waits_seconds > peer.last.patience_seconds;
  });
  if (all_wait && slowest->last.calls == fastest->last.calls)
    end(fmt::format(
        "all ranks have been in the same sum for {:.0f} s, during {}: the network between them or "
        "a GPU hangs",
        fastest->last.waits_seconds, fastest->last.text));
}

// A peer that is lost is heard of anyway; one that stands still, and does not read, must not hold this one
// up. Of where this rank stands, the next beat says more than one that had to wait.
void PeerWatch::tell_all(const Message& message) {
  for (Peer& peer : peers_) {
    if (peer.socket < 0 || (message.kind == Kind::standing && !peer.unsent.empty())) continue;
    peer.unsent.add(&message, sizeof(message));
    peer.unsent.flush(peer.socket);
  }
}

PeerWatch::Message PeerWatch::standing() {
  Message message;
  message.calls = calls_;
  message.pieces = pieces_done;
  message.waits_seconds = seconds_now() - in_call_since_;
  const std::lock_guard lock(mutex_);
  message.patience_seconds = patience_seconds_;
  during_.copy(message.text, sizeof(message.text) - 1);
  return message;
}

bool PeerWatch::all_said_farewell() const {
  return std::all_of(peers_.begin(), peers_.end(),
                     [](const Peer& peer) { return peer.socket < 0 || peer.said_farewell; });
}

bool PeerWatch::all_is_sent() const {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.unsent.empty(); });
}

// Leaves without a word to MPI, which would wait for the lost rank, and from this thread, as the others may
// be waiting for it too. Files are whole at any moment.
void PeerWatch::end(const std::string& text) {
  if (rank_ == 0) {
    Message lost;
    lost.kind = Kind::lost;
    text.copy(lost.text, sizeof(lost.text) - 1);
    tell_all(lost);
    ::usleep(300'000);  // they have heard it before this end closes the connections
  }
  const std::string line = fmt::format(
      "flasheva: rank {}: {}; start the same command again to go on from the last checkpoint\n", rank_, text);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(static_cast<int>(ExitCode::peer_lost));
}

}  // namespace flasheva
