// Marks a function that both a CPU and a GPU run.
#pragma once

#ifdef __CUDACC__
#define FLASHEVA_HOST_DEVICE __host__ __device__
#else
#define FLASHEVA_HOST_DEVICE
#endif
