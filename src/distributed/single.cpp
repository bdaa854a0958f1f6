// One process: every sum over ranks is the value itself.
#include "src/distributed/communicator.h"

namespace flasheva {

namespace {

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int threads() const override { return 0; }
  std::string description() override { return "1 rank"; }
  void all_reduce_sum(std::span<double>) override {}
  void sum_on_gpu(DeviceSums&) override {}
  void start_all_reduce_sum(Tensor, Tensor, DType) override {}
  void start_reduce_scatter_sum(Tensor, Tensor, DType) override {}
  void start_all_gather(Tensor) override {}
  void wait() override {}
  void set_timeout(double) override {}
  void set_patience(double, const std::string&) override {}
  void leave() override {}
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator() { return std::make_unique<SingleCommunicator>(); }

}  // namespace flasheva
