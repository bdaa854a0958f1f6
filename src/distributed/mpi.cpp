#include "src/distributed/mpi.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/distributed/background.h"
#include "src/distributed/device_sums.h"
#include "src/distributed/peer_watch.h"

namespace flasheva {

namespace {

void check(int status) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail(ExitCode::peer_lost, "MPI: {}", std::string(text, static_cast<std::size_t>(length)));
}

// MPI, initialised. Not finalised by its destructor: MPI_Finalize waits for all ranks, and one may be lost.
class World {
 public:
  World() {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided));
    if (provided < MPI_THREAD_SERIALIZED)
      fail(ExitCode::other, "this MPI supports no threads; build with one that does (MPI_THREAD_SERIALIZED)");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    check(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    check(MPI_Comm_size(MPI_COMM_WORLD, &size));
  }

  int rank = 0, size = 1;
};

// While it lives, ranks that do not come to know of each other in time are ended; nobody watches over them
// yet. Open MPI waits without end where it takes an address that two machines have for that of the other.
class TimeToMeet {
 public:
  explicit TimeToMeet(int rank) : rank_(rank) {}

 private:
  void end_late(const std::stop_token& met) const {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any().wait_for(lock, met, limit, [] { return false; });
    if (met.stop_requested()) return;
    fmt::print(
        stderr,
        "flasheva: rank {}: no message from the others in {} s; if machines have a network of the same "
        "addresses, such as docker0, name the one between them: "
        "export OMPI_MCA_btl_tcp_if_include=10.0.0.0/16\n",
        rank_, limit.count());
    ::_exit(static_cast<int>(ExitCode::other));
  }

  static constexpr std::chrono::seconds limit{60};
  const int rank_;
  std::jthread thread_{[this](const std::stop_token& met) { end_late(met); }};
};

// What ranks tell each other of the machine they run on.
struct Place {
  char host[128] = {};
  cpu_set_t cores = {};  // those that the launcher lets the rank run on

  static Place own() {
    Place place;
    ::gethostname(place.host, sizeof(place.host) - 1);
    ::sched_getaffinity(0, sizeof(place.cores), &place.cores);
    return place;
  }
  // Ranks bound to cores of their own do not share them.
  bool shares_cores_with(const Place& other) const {
    cpu_set_t common;
    CPU_AND(&common, &cores, &other.cores);
    return std::strcmp(host, other.host) == 0 && CPU_COUNT(&common) > 0;
  }
};

// MPI knows no bfloat16; nothing computes with what travels.
MPI_Datatype mpi_type(DType type) {
  return type == DType::f64 ? MPI_DOUBLE : type == DType::bf16 ? MPI_UINT16_T : MPI_FLOAT;
}

// Every rank's piece of a tensor, as MPI wants it.
struct Pieces {
  Pieces(std::int64_t elements, int ranks) {
    FLASHEVA_CHECK(elements <= std::numeric_limits<int>::max());
    for (int r = 0; r < ranks; ++r) {
      const Range piece = piece_of_rank({0, elements}, r, ranks);
      firsts.push_back(static_cast<int>(piece.begin));
      counts.push_back(static_cast<int>(piece.size()));
    }
  }
  std::vector<int> firsts, counts;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator()
      : watch_(world_.rank, world_.size,
               [this](std::span<char> bytes) {
                 const TimeToMeet time(world_.rank);
                 check(MPI_Bcast(bytes.data(), static_cast<int>(bytes.size()), MPI_CHAR, 0, MPI_COMM_WORLD));
               }),
        places_(static_cast<std::size_t>(world_.size)) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // a launcher that is killed leaves no ranks behind
    Place own = Place::own();
    check(MPI_Allgather(&own, sizeof(Place), MPI_BYTE, places_.data(), sizeof(Place), MPI_BYTE,
                        MPI_COMM_WORLD));
  }

  int rank() const override { return world_.rank; }
  int size() const override { return world_.size; }
  int local_rank() const override;
  int threads() const override { return threads_of(places_[static_cast<std::size_t>(world_.rank)]); }
  std::string description() override;

  void all_reduce_sum(std::span<double> values) override {
    start([this, values] { sum(values); });
    background_.wait();
  }
  void sum_on_gpu(DeviceSums& sums) override { gpu_ = &sums; }
  // Every rank sums its piece, in the order of the ranks, and gives it to all: the bytes of the best
  // all-reduce, and an order of additions that no library chooses.
  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override {
    if (tensor.device == Device::cuda) return gpu_->start_all_reduce_sum(tensor, scratch, travel);
    start_reduce_scatter_sum(tensor, scratch, travel);
    if (travel == tensor.dtype)
      start_all_gather(tensor);
    else
      start([this, tensor, scratch] { gather_rounded(tensor, static_cast<bf16*>(scratch.data)); });
  }
  void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) override {
    if (tensor.device == Device::cuda) return gpu_->start_reduce_scatter_sum(tensor, scratch, travel);
    FLASHEVA_CHECK(travel == tensor.dtype || (travel == DType::bf16 && tensor.dtype == DType::f32));
    start([this, tensor, scratch, travel] {
      if (world_.size == 1) return;  // the sum is there, and no scratch
      if (travel == DType::bf16)
        sum_own_piece_rounded(tensor, static_cast<bf16*>(scratch.data));
      else if (tensor.dtype == DType::f64)
        sum_own_piece<double>(tensor, tensor.as<double>(), scratch.as<double>());
      else
        sum_own_piece<float>(tensor, tensor.as<float>(), scratch.as<float>());
    });
  }
  void start_all_gather(Tensor tensor) override {
    if (tensor.device == Device::cuda) return gpu_->start_all_gather(tensor);
    start([this, tensor] { gather(tensor.data, tensor.size(), mpi_type(tensor.dtype)); });
  }
  void wait() override {
    if (gpu_ != nullptr) start([this] { wait_until([this] { return gpu_->done(); }); });
    background_.wait();
  }
  void set_timeout(double seconds) override { watch_.set_timeout(seconds); }
  void set_patience(double seconds, const std::string& during) override {
    watch_.set_patience(seconds, during);
  }

  void leave() override {
    // When the first rank has ended, a launcher may end the rest: that must not become their exit code.
    std::signal(SIGTERM, SIG_IGN);
    std::vector<double> nothing(1);
    all_reduce_sum(nothing);  // all are here
    watch_.farewell();
    MPI_Finalize();
  }

 private:
  int threads_of(const Place& place) const {
    const auto sharing = std::count_if(places_.begin(), places_.end(),
                                       [&](const Place& other) { return place.shares_cores_with(other); });
    return std::max(1, CPU_COUNT(&place.cores) / static_cast<int>(sharing));
  }

  // All calls of MPI after the constructor's come from one thread, in the same order on every rank.
  void start(Background::Job job) {
    background_.start([this, job = std::move(job)] {
      watch_.begin_call();
      try {
        job();
      } catch (const Error& error) {
        end(error.code(), error.what());
      } catch (const std::exception& error) {
        end(ExitCode::other, error.what());
      }
      watch_.end_call();
    });
  }
  // Where the network or a rank that is gone is to blame, the watch knows which, and ends this rank first.
  [[noreturn]] void end(ExitCode code, const char* what) const {
    ::sleep(1);
    fmt::print(stderr, "flasheva: rank {}: {}\n", world_.rank, what);
    ::_exit(static_cast<int>(code));
  }

  // Asks now and then, as MPI_Wait would keep a core busy that computes meanwhile.
  template <class Done>
  void wait_until(const Done& done);
  void complete(int status, MPI_Request& request);

  void sum(std::span<double> values);
  template <class Travel>
  void sum_own_piece(Tensor tensor, const Travel* sent, Travel* received);
  void sum_own_piece_rounded(Tensor tensor, bf16* scratch);
  void gather_rounded(Tensor tensor, bf16* scratch);
  void gather(void* values, std::int64_t elements, MPI_Datatype type);

  World world_;
  PeerWatch watch_;
  std::vector<Place> places_;  // by rank
  DeviceSums* gpu_ = nullptr;
  Background background_;  // the last to come, the first to go: its jobs use the others
};

std::string MpiCommunicator::description() {
  std::string text = fmt::format("{} ranks: ", world_.size);
  for (std::size_t first = 0, end = 0; first < places_.size(); first = end) {
    while (end < places_.size() && std::strcmp(places_[end].host, places_[first].host) == 0) ++end;
    const int threads = threads_of(places_[first]);
    const std::string which = end - first == 1 ? fmt::to_string(first) : fmt::format("{}-{}", first, end - 1);
    text += fmt::format("{}{} on {}, {} thread{} each", first == 0 ? "" : "; ", which, places_[first].host,
                        threads, threads == 1 ? "" : "s");
  }
  return text;
}

int MpiCommunicator::local_rank() const {
  const Place& own = places_[static_cast<std::size_t>(world_.rank)];
  return static_cast<int>(
      std::count_if(places_.begin(), places_.begin() + world_.rank,
                    [&](const Place& other) { return std::strcmp(other.host, own.host) == 0; }));
}

void MpiCommunicator::complete(int status, MPI_Request& request) {
  check(status);
  wait_until([&] {
    int done = 0;
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    return done != 0;
  });
}

template <class Done>
void MpiCommunicator::wait_until(const Done& done) {
  constexpr int eager_polls = 200, pause_us = 50;
  for (int polls = 0; !done(); ++polls) {
    if (polls < eager_polls)
      ::sched_yield();
    else
      ::usleep(pause_us);
  }
}

void MpiCommunicator::sum(std::span<double> values) {
  const int count = static_cast<int>(values.size());
  std::vector<double> all(values.size() * static_cast<std::size_t>(world_.size));
  MPI_Request request;
  complete(MPI_Iallgather(values.data(), count, MPI_DOUBLE, all.data(), count, MPI_DOUBLE, MPI_COMM_WORLD,
                          &request),
           request);
  std::copy_n(all.begin(), values.size(), values.begin());
  for (std::size_t i = values.size(); i < all.size(); ++i) values[i % values.size()] += all[i];
}

// sent (elements): the tensor's elements as they travel; received: a piece of every rank. This rank's piece
// of the tensor becomes their sum.
template <class Travel>
void MpiCommunicator::sum_own_piece(Tensor tensor, const Travel* sent, Travel* received) {
  using Sum = std::conditional_t<std::is_same_v<Travel, double>, double, float>;
  const MPI_Datatype type = mpi_type(DTypeOf<Travel>::value);
  const Pieces pieces(tensor.size(), world_.size);
  const auto own = static_cast<std::size_t>(world_.rank);
  const int count = pieces.counts[own];
  Pieces arriving = pieces;  // one own piece of every rank, one behind the other
  for (std::size_t r = 0; r < arriving.counts.size(); ++r) {
    arriving.counts[r] = count;
    arriving.firsts[r] = static_cast<int>(r) * count;
  }
  MPI_Request request;
  complete(MPI_Ialltoallv(sent, pieces.counts.data(), pieces.firsts.data(), type, received,
                          arriving.counts.data(), arriving.firsts.data(), type, MPI_COMM_WORLD, &request),
           request);
  Sum* piece = tensor.as<Sum>() + pieces.firsts[own];
  for (int i = 0; i < count; ++i) piece[i] = static_cast<Sum>(received[i]);
  for (int r = 1; r < world_.size; ++r)
    for (int i = 0; i < count; ++i)
      piece[i] += static_cast<Sum>(received[static_cast<std::int64_t>(r) * count + i]);
}

// Behind each other in the scratch memory: what is sent, what arrives. Both in half the bytes of float32.
void MpiCommunicator::sum_own_piece_rounded(Tensor tensor, bf16* scratch) {
  const float* values = tensor.as<float>();
  for (std::int64_t i = 0; i < tensor.size(); ++i) scratch[i] = bf16(values[i]);
  sum_own_piece<bf16>(tensor, scratch, scratch + tensor.size());
}

void MpiCommunicator::gather(void* values, std::int64_t elements, MPI_Datatype type) {
  if (world_.size == 1) return;
  const Pieces pieces(elements, world_.size);
  MPI_Request request;
  complete(MPI_Iallgatherv(MPI_IN_PLACE, 0, type, values, pieces.counts.data(), pieces.firsts.data(), type,
                           MPI_COMM_WORLD, &request),
           request);
}

void MpiCommunicator::gather_rounded(Tensor tensor, bf16* scratch) {
  if (world_.size == 1) return;
  float* values = tensor.as<float>();
  const Range own = piece_of_rank({0, tensor.size()}, world_.rank, world_.size);
  for (std::int64_t i = own.begin; i < own.end; ++i) scratch[i] = bf16(values[i]);
  gather(scratch, tensor.size(), mpi_type(DType::bf16));
  for (std::int64_t i = 0; i < tensor.size(); ++i) values[i] = static_cast<float>(scratch[i]);
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator() { return std::make_unique<MpiCommunicator>(); }

}  // namespace flasheva
