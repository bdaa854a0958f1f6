// Messages through a connection that is full for a while.
#include "src/distributed/outbox.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace flasheva {
namespace {

using Message = std::array<std::int64_t, 999>;  // longer than what the system hands over in one piece

class FullConnection : public testing::Test {
 protected:
  FullConnection() {
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    const int few_bytes = 1;  // as few as the system allows
    ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &few_bytes, sizeof(few_bytes));
  }
  ~FullConnection() override {
    for (const int end : ends)
      if (end >= 0) ::close(end);
  }

  void send(std::int64_t number) {
    Message message;
    message.fill(number);
    outbox.add(message.data(), sizeof(message));
    outbox.flush(ends[0]);
  }
  // What the other end finds, message by message.
  void read_all() {
    char piece[1000];
    for (ssize_t got = 0; (got = ::recv(ends[1], piece, sizeof(piece), MSG_DONTWAIT)) > 0;)
      read.append(piece, static_cast<std::size_t>(got));
  }
  std::vector<Message> messages_read() const {
    std::vector<Message> messages(read.size() / sizeof(Message));
    read.copy(reinterpret_cast<char*>(messages.data()), messages.size() * sizeof(Message));
    EXPECT_EQ(read.size() % sizeof(Message), 0u);
    return messages;
  }

  std::array<int, 2> ends{-1, -1};
  Outbox outbox;
  std::string read;
};

TEST_F(FullConnection, CutsNoMessageInTwo) {
  std::int64_t sent = 0;
  for (int outage = 0; outage < 20; ++outage) {
    while (outbox.empty()) send(sent++);
    send(sent++);  // behind one that is not through
    while (!outbox.empty()) {
      read_all();
      outbox.flush(ends[0]);
    }
  }
  read_all();
  const std::vector<Message> messages = messages_read();
  ASSERT_EQ(messages.size(), static_cast<std::size_t>(sent));
  for (std::int64_t i = 0; i < sent; ++i)
    for (const std::int64_t word : messages[static_cast<std::size_t>(i)]) ASSERT_EQ(word, i);
}

TEST_F(FullConnection, KeepsNothingForAPeerThatIsGone) {
  while (outbox.empty()) send(1);
  ::close(ends[1]);
  ends[1] = -1;
  outbox.flush(ends[0]);
  EXPECT_TRUE(outbox.empty());
}

}  // namespace
}  // namespace flasheva
