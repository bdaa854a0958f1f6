// Which launchers a build without MPI refuses: ranks that do not know of each other would all write into one
// folder.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/distributed/communicator.h"
#include "tests/support/expect_error.h"

namespace flasheva {
namespace {

using Environment = std::map<std::string, std::string>;

// Starts as a launcher that sets these variables, and no other one.
std::unique_ptr<Communicator> started_with(const Environment& environment) {
  for (const char* variable :
       {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"})
    ::unsetenv(variable);
  for (const auto& [variable, value] : environment) ::setenv(variable.c_str(), value.c_str(), 1);
  return make_communicator();
}

TEST(LaunchWithoutMpi, OneProcessIsOneRank) {
  for (const Environment& environment : std::vector<Environment>{
           {},
           {{"OMPI_COMM_WORLD_SIZE", "1"}, {"PMIX_RANK", "0"}},
           {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}},
           {{"PMIX_RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}},
           // mpirun or mpiexec within a step of Slurm's.
           {{"OMPI_COMM_WORLD_SIZE", "1"}, {"PMIX_RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}},
           {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}}})
    EXPECT_EQ(started_with(environment)->size(), 1);
}

TEST(LaunchWithoutMpi, OneOfSeveralIsRefused) {
  for (const Environment& environment :
       std::vector<Environment>{{{"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_RANK", "1"}},
                                {{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}},
                                {{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}, {"SLURM_STEP_NUM_TASKS", "1"}},
                                {{"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "1"}},
                                {{"PMI_RANK", "1"}},  // of how many, nobody says
                                {{"PMIX_RANK", "1"}}})
    expect_error(ExitCode::usage, "started as one of several ranks, but built without MPI",
                 [&] { started_with(environment); });
}

}  // namespace
}  // namespace flasheva
