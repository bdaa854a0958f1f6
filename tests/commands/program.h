// The built program as a subprocess.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "src/core/error.h"

namespace flasheva {

using Arguments = std::vector<std::string>;

struct Result {
  int code = 0;  // 128 + N where signal N ended it
  std::string out, err;
};

// A started program. Its threads do not spin: tests share the machine with each other.
class Program {
 public:
  // Each of `environment` is NAME=VALUE. `launcher`: the program and arguments that start it, such as
  // mpirun's.
  explicit Program(const Arguments& arguments, const Arguments& environment = {},
                   const Arguments& launcher = {})
      : out_(std::tmpfile()), err_(std::tmpfile()) {
    if (out_ == nullptr || err_ == nullptr) throw std::runtime_error("tmpfile failed");
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("fork failed");
    if (process_ > 0) return;
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    ::setenv("CUDA_VISIBLE_DEVICES", "", 1);  // what is tested here is the program, on the CPU
    for (const std::string& entry : environment)
      ::setenv(entry.substr(0, entry.find('=')).c_str(), entry.c_str() + entry.find('=') + 1, 1);
    ::dup2(::fileno(out_), STDOUT_FILENO);
    ::dup2(::fileno(err_), STDERR_FILENO);
    std::vector<char*> words;
    for (const std::string& word : launcher) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(const_cast<char*>(FLASHEVA_PROGRAM));
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    ::execv(words[0], words.data());
    ::_exit(127);
  }
  ~Program() {
    if (process_ > 0) {
      signal(SIGKILL);
      wait();
    }
    std::fclose(out_);
    std::fclose(err_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const { ::kill(process_, number); }
  pid_t process() const { return process_; }
  // Whether it has not ended yet.
  bool runs() const {
    siginfo_t ended{};
    return ::waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid == 0;
  }

  Result wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = 0;
    return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), content_of(out_),
            content_of(err_)};
  }

 private:
  static std::string content_of(std::FILE* file) {
    std::string text;
    std::rewind(file);
    for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) text += static_cast<char>(c);
    return text;
  }

  std::FILE *out_, *err_;
  pid_t process_ = 0;
};

inline Result flasheva(const Arguments& arguments, const Arguments& environment = {}) {
  return Program(arguments, environment).wait();
}

// Runs it, expects success, and gives what it printed.
inline std::string expect_done(const Arguments& arguments, const Arguments& environment = {}) {
  const Result result = flasheva(arguments, environment);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err.find("flasheva: "), std::string::npos) << result.err;
  return result.out;
}

// Runs it, expects the exit code and one line on standard error, nothing else, that holds `part`. A run that
// has begun (`after_log`) may have logged lines before it.
inline std::string expect_failure(const Arguments& arguments, ExitCode code, const std::string& part,
                                  bool after_log = false) {
  const Result result = flasheva(arguments);
  EXPECT_EQ(result.code, static_cast<int>(code)) << result.err;
  EXPECT_TRUE(result.out.empty() || after_log) << result.out;
  const std::size_t last = result.err.rfind('\n', result.err.size() < 2 ? 0 : result.err.size() - 2);
  const std::string line = last == std::string::npos ? result.err : result.err.substr(last + 1);
  EXPECT_TRUE(after_log || line == result.err) << "more than one line: " << result.err;
  EXPECT_EQ(line.rfind("flasheva: ", 0), 0u) << result.err;
  EXPECT_NE(line.find(part), std::string::npos) << line << "lacks: " << part;
  return line;
}

}  // namespace flasheva
