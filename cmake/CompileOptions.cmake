# flasheva_options: warnings, architecture, OpenMP and sanitizers for every target of the project.
find_package(OpenMP REQUIRED COMPONENTS CXX)

add_library(flasheva_options INTERFACE)
target_include_directories(flasheva_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(flasheva_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror>)
if(FLASHEVA_CPU_ARCH)
  target_compile_options(flasheva_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=${FLASHEVA_CPU_ARCH}>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Vector types wider than the build's registers are internal to each file; the ABI note does not apply.
  target_compile_options(flasheva_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-psabi>)
else()
  # Sanitizers stop clang from vectorising loops that are marked for it.
  target_compile_options(flasheva_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-pass-failed>)
endif()
target_link_libraries(flasheva_options INTERFACE OpenMP::OpenMP_CXX)

if(FLASHEVA_SANITIZE)
  add_compile_options(-fsanitize=${FLASHEVA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${FLASHEVA_SANITIZE})
endif()
if(FLASHEVA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
