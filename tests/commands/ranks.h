// The built program as several ranks under mpirun.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "tests/commands/program.h"

namespace flasheva {

// More ranks than cores, as Open MPI 4 and 5 allow them. Sanitizers would report what MPI itself never frees.
inline const Arguments rank_environment = {
    "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1",
    "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe", "ASAN_OPTIONS=detect_leaks=0"};

inline Arguments mpirun(int ranks, const Arguments& more = {}) {
  Arguments words = {FLASHEVA_MPIRUN, "-np", std::to_string(ranks)};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// As far as it can be read: the process that a file in /proc tells of may end meanwhile.
inline std::string content_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string content;
  char piece[4096];
  while (stream.read(piece, sizeof(piece)), stream.gcount() > 0)
    content.append(piece, static_cast<std::size_t>(stream.gcount()));
  return content;
}

// The process of a rank of the run with this output folder; 0 if there is none.
inline pid_t process_of_rank(const std::string& output, int rank) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc"))
    if (content_of(entry.path() / "comm") == "flasheva\n" &&
        content_of(entry.path() / "cmdline").find("run.output=" + output + '\0') != std::string::npos &&
        content_of(entry.path() / "environ").find(fmt::format("OMPI_COMM_WORLD_RANK={}", rank) + '\0') !=
            std::string::npos)
      return std::atoi(entry.path().filename().c_str());
  return 0;
}

// Runs, or stands stopped; a process that nobody has waited for yet is neither.
inline bool is_alive(pid_t process) {
  const std::string status = content_of(fmt::format("/proc/{}/status", process));
  return !status.empty() && status.find("State:\tZ") == std::string::npos;
}

inline bool has_living_children(pid_t process) {
  std::error_code none;
  for (const auto& thread :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process), none)) {
    std::istringstream children(content_of(thread.path() / "children"));
    for (pid_t child = 0; children >> child;)
      if (is_alive(child)) return true;
  }
  return false;
}

// What the ranks that this mpirun started came to. Where one is killed within MPI_Init, Open MPI 4.1.4's
// mpirun may hang in PMIx_server_finalize when all of them are gone (7 of 400 tries); it is killed then.
inline Result wait_for_ranks(Program& mpirun) {
  using Clock = std::chrono::steady_clock;
  for (Clock::time_point last_seen = Clock::now(); mpirun.runs();
       std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
    if (has_living_children(mpirun.process())) last_seen = Clock::now();
    if (Clock::now() - last_seen < std::chrono::seconds(20)) continue;
    std::fprintf(stderr, "mpirun hung after its last rank had ended\n");
    mpirun.signal(SIGKILL);
    break;
  }
  return mpirun.wait();
}

inline Result run_ranks(int ranks, const Arguments& arguments) {
  Program program(arguments, rank_environment, mpirun(ranks));
  return wait_for_ranks(program);
}

inline int count_in(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// mpirun that leaves the other ranks alone when one dies, and says with what code each ended.
inline Arguments patient_mpirun(int ranks) {
  return mpirun(ranks, {"--enable-recovery", "/bin/sh", "-c", "\"$@\"; echo \"ended with $?\" >&2", "sh"});
}

}  // namespace flasheva
