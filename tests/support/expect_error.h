// An Error is expected, with its exit code and a part of its one line.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "src/core/error.h"

namespace flasheva {

template <class Action>
void expect_error(ExitCode code, const std::string& part_of_message, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected: " << part_of_message;
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    EXPECT_NE(message.find(part_of_message), std::string::npos) << message << "\nlacks: " << part_of_message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << "more than one line: " << message;
  }
}

// The one line of the Error that a call ends with.
template <class Call>
std::string message_of(Call&& call, ExitCode code = ExitCode::data) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "(accepted)";
}

}  // namespace flasheva
