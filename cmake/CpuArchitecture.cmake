# The -march of the CPU code. An explicit x86-64 level instead of `native`: the same words name the same code on
# every machine, so caches of compiled objects stay valid and a binary's needs are known.
if(NOT FLASHEVA_CPU_ARCH AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(FLASHEVA_CPU_ARCH x86-64-v2)
  if(EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo flags REGEX "^flags" LIMIT_COUNT 1)
    if(flags MATCHES " avx2 " AND flags MATCHES " fma " AND flags MATCHES " f16c ")
      set(FLASHEVA_CPU_ARCH x86-64-v3)
    endif()
    if(flags MATCHES " avx512f " AND flags MATCHES " avx512vl " AND flags MATCHES " avx512bw " AND
       flags MATCHES " avx512dq ")
      set(FLASHEVA_CPU_ARCH x86-64-v4)
    endif()
  endif()
endif()
message(STATUS "CPU code: -march=${FLASHEVA_CPU_ARCH}")
