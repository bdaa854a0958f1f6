// Finds out how this process was started: alone, or as one of the ranks of a launcher.
#include <cstdlib>
#include <string>

#include "src/core/error.h"
#include "src/distributed/communicator.h"
#ifdef FLASHEVA_HAS_MPI
#include "src/distributed/mpi.h"
#endif

namespace flasheva {

namespace {

int number_in(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoi(text);
}

// Open MPI's mpirun, srun --mpi=pmix, MPICH's mpiexec.
bool started_by_mpi() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

#ifndef FLASHEVA_HAS_MPI
// Whether the launcher says that it started this process alone: Open MPI's mpirun, MPICH's mpiexec, srun.
bool started_alone() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (std::getenv(variable) != nullptr) return number_in(variable, 0) == 1;
  return false;
}
#endif

}  // namespace

std::unique_ptr<Communicator> make_communicator() {
  const int tasks = number_in("SLURM_STEP_NUM_TASKS", 1);
  if (!started_by_mpi()) {
    if (tasks > 1 && number_in("SLURM_PROCID", 0) > 0) throw Error(ExitCode::usage, "");  // the first speaks
    if (tasks > 1)
      fail(ExitCode::usage, "srun started {} tasks that do not know of each other; use srun --mpi=pmix",
           tasks);
    return make_single_communicator();
  }
#ifdef FLASHEVA_HAS_MPI
  std::unique_ptr<Communicator> ranks = make_mpi_communicator();
  if (const int started = number_in("PMI_SIZE", 1); started > 1 && ranks->size() == 1) {
    if (number_in("PMI_RANK", 0) > 0) throw Error(ExitCode::usage, "");  // the first speaks
    fail(ExitCode::usage,
         "{} ranks were started by a launcher that is not of the MPI of this build; use its mpirun, or "
         "srun --mpi=pmix",
         started);
  }
  return ranks;
#else
  if (started_alone()) return make_single_communicator();
  fail(ExitCode::usage,
       "started as one of several ranks, but built without MPI; install libopenmpi-dev and "
       "build again");
#endif
}

}  // namespace flasheva
