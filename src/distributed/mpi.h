// Ranks that MPI started and connected; they compute on CPUs.
#pragma once

#include <memory>

#include "src/distributed/communicator.h"

namespace flasheva {

// Initialises MPI: call it once, in a process that mpirun or srun started.
std::unique_ptr<Communicator> make_mpi_communicator();

}  // namespace flasheva
