// Messages on their way into a connection that must not hold the sender up. What the connection does not take
// at once is kept and goes first the next time: the other end finds whole messages, one behind the other.
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <string>

namespace flasheva {

class Outbox {
 public:
  bool empty() const { return unsent_.empty(); }

  void add(const void* message, std::size_t bytes) {
    unsent_.append(static_cast<const char*>(message), bytes);
  }

  // Sends what the socket takes now. To a peer that is gone, nothing is left to send.
  void flush(int socket) {
    if (unsent_.empty()) return;
    const ssize_t sent = ::send(socket, unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) unsent_.erase(0, static_cast<std::size_t>(sent));
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) unsent_.clear();
  }

 private:
  std::string unsent_;
};

}  // namespace flasheva
