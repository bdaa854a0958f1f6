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

namespace flasheva {

namespace {

constexpr int beat_ms = 250;  // how often a rank says how far it is
constexpr int answer_ms = 2000;
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
  double beat_at = 0;
  for (Peer& peer : peers_) peer.heard_at = seconds_now();
  while (state_ != State::gone) {
    ::poll(sockets.data(), sockets.size(), beat_ms);
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      if (sockets[i].revents != 0) hear(i);
      if (peers_[i].said_farewell) sockets[i].fd = -1;
      peers_[i].unsent.flush(peers_[i].socket);
    }
    check_silence();
    if (state_ == State::giving_up) complain();
    if (state_ == State::leaving && !said_farewell) {
      tell_all(Kind::farewell);
      said_farewell = true;
      sockets.back().fd = -1;
    }
    // Nothing after a farewell: a connection closed with words unread takes those before with it.
    if (!said_farewell && seconds_now() - beat_at > 1e-3 * beat_ms) {
      tell_all(Kind::progress);
      beat_at = seconds_now();
    }
    if (said_farewell && all_said_farewell() && all_is_sent()) return;
  }
}

void PeerWatch::check_silence() {
  for (const Peer& peer : peers_) {
    const double silent = seconds_now() - peer.heard_at;
    if (peer.socket >= 0 && !peer.said_farewell && silent > timeout_seconds_)
      end(peer, fmt::format("has given no sign of life for {:.0f} s", silent));
  }
}

void PeerWatch::hear(std::size_t index) {
  Peer& peer = peers_[index];
  Message message;
  if (!receive_all(peer.socket, &message, sizeof(message))) end(peer, "died");
  peer.progress = message.progress;
  peer.heard_at = seconds_now();
  switch (message.kind) {
    case Kind::progress:
      return;
    case Kind::farewell:
      peer.said_farewell = true;
      return;
    case Kind::waiting:
      end(slowest(), message.text);
    case Kind::lost:
      end(message.text);
  }
}

// A peer that is lost is heard of anyway; one that stands still, and does not read, must not hold this one
// up. Of how far this rank is, the next beat says more than one that had to wait.
void PeerWatch::tell(Peer& peer, Kind kind, const std::string& text) {
  if (peer.socket < 0 || (kind == Kind::progress && !peer.unsent.empty())) return;
  Message message{kind, progress_, {}};
  text.copy(message.text, sizeof(message.text) - 1);
  peer.unsent.add(&message, sizeof(message));
  peer.unsent.flush(peer.socket);
}

void PeerWatch::tell_all(Kind kind, const std::string& text) {
  for (Peer& peer : peers_) tell(peer, kind, text);
}

// Of those that are equally far, the one that has been silent longest: it may stand still in the midst of a
// call.
const PeerWatch::Peer& PeerWatch::slowest() {
  peers_[0].progress = progress_;
  peers_[0].heard_at = seconds_now();
  return *std::min_element(peers_.begin(), peers_.end(), [](const Peer& a, const Peer& b) {
    return std::pair(a.progress, a.heard_at) < std::pair(b.progress, b.heard_at);
  });
}

bool PeerWatch::all_said_farewell() const {
  return std::all_of(peers_.begin(), peers_.end(),
                     [](const Peer& peer) { return peer.socket < 0 || peer.said_farewell; });
}

bool PeerWatch::all_is_sent() const {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.unsent.empty(); });
}

void PeerWatch::give_up(double seconds) {
  waited_seconds_ = seconds;
  change(State::giving_up);
  while (true) ::pause();
}

// Rank 0 hears how far each rank is and names the slowest, which may be itself. If it does not answer, it is
// the one that hangs.
void PeerWatch::complain() {
  const std::string what = fmt::format("has kept the others waiting for {:.0f} s", waited_seconds_.load());
  if (rank_ == 0) end(slowest(), what);
  tell(peers_[0], Kind::waiting, what);
  pollfd answer{peers_[0].socket, POLLIN, 0};
  if (::poll(&answer, 1, answer_ms) == 0) end(peers_[0], what);
  hear(0);
}

void PeerWatch::end(const Peer& lost, const std::string& what) {
  const std::string text = lost.name + " " + what;
  if (rank_ == 0) {
    tell_all(Kind::lost, text);
    ::usleep(300'000);  // they have heard it before this end closes the connections
  }
  end(text);
}

// Leaves without a word to MPI, which would wait for the lost rank, and from this thread, as the others may
// be waiting for it too. Files are whole at any moment.
void PeerWatch::end(const std::string& text) const {
  const std::string line = fmt::format(
      "flasheva: rank {}: {}; start the same command again to go on from the last checkpoint\n", rank_, text);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(static_cast<int>(ExitCode::peer_lost));
}

}  // namespace flasheva
