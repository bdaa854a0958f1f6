#include "src/training/checkpoint_saver.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>

namespace flasheva {

namespace {

// A checksum of 128 bits as numbers that a double holds exactly, and back.
constexpr std::size_t words = 4, digits = 8;
std::array<double, words> numbers_in(const std::string& checksum) {
  std::array<double, words> numbers{};
  for (std::size_t i = 0; i < words; ++i)
    numbers[i] = static_cast<double>(std::stoul(checksum.substr(digits * i, digits), nullptr, 16));
  return numbers;
}
std::string text_of(const double* numbers) {
  std::string text;
  for (std::size_t i = 0; i < words; ++i)
    text += fmt::format("{:08x}", static_cast<std::uint32_t>(numbers[i]));
  return text;
}

}  // namespace

CheckpointSaver::CheckpointSaver(std::filesystem::path checkpoints, std::int64_t keep,
                                 Communicator& communicator)
    : checkpoints_(std::move(checkpoints)), keep_(keep), communicator_(communicator) {}

void CheckpointSaver::begin(std::int64_t step, std::uintmax_t bytes) {
  writer_.emplace(checkpoints_, step);
  succeed_together(communicator_, [&] {
    if (communicator_.rank() == 0) writer_->begin(bytes);
  });
}

void CheckpointSaver::start(Write write) {
  stage_ = Stage::writing;
  moments_.reset();
  in_background([this, write = std::move(write)] { moments_ = write(*writer_); });
}

void CheckpointSaver::go_on(bool any_busy) {
  if (stage_ != Stage::idle && !any_busy) conclude_stage();
}

void CheckpointSaver::finish() {
  while (stage_ != Stage::idle) {
    background_.wait();
    conclude_stage();
  }
}

// Nothing may leave a thread; what failed is said at the end of the stage.
void CheckpointSaver::in_background(std::function<void()> work) {
  error_.reset();
  background_.start([this, work = std::move(work)] {
    try {
      work();
    } catch (const Error& error) {
      error_ = error;
    } catch (const std::exception& error) {
      error_.emplace(ExitCode::other, error.what());
    }
  });
}

// No rank's thread works.
void CheckpointSaver::conclude_stage() {
  const Stage concluded = std::exchange(stage_, Stage::idle);
  try {
    succeed_together(communicator_, [&] {
      if (error_) throw *error_;
    });
  } catch (const Error&) {
    if (communicator_.rank() == 0) writer_->abandon();
    throw;
  }
  if (concluded == Stage::naming) return;
  const std::vector<CheckpointFile> moments = moments_of_all_ranks();
  stage_ = Stage::naming;
  if (communicator_.rank() == 0) in_background([this, moments] { writer_->finish(moments, keep_); });
}

std::vector<CheckpointFile> CheckpointSaver::moments_of_all_ranks() {
  const int ranks = communicator_.size();
  constexpr std::size_t stride = 1 + words;  // bytes, checksum
  std::vector<double> figures(stride * static_cast<std::size_t>(ranks));
  if (moments_) {
    double* own = &figures[stride * static_cast<std::size_t>(communicator_.rank())];
    own[0] = static_cast<double>(moments_->bytes);
    const auto numbers = numbers_in(moments_->xxh3_128);
    std::copy(numbers.begin(), numbers.end(), own + 1);
  }
  communicator_.all_reduce_sum(figures);
  const auto bytes = [&](int rank) { return figures[stride * static_cast<std::size_t>(rank)]; };
  int parts = 0;
  for (int rank = 0; rank < ranks; ++rank) parts += bytes(rank) > 0;
  std::vector<CheckpointFile> files;
  for (int rank = 0; rank < parts; ++rank)
    files.push_back({moments_file_name(rank, parts), static_cast<std::uint64_t>(bytes(rank)),
                     text_of(&figures[stride * static_cast<std::size_t>(rank) + 1])});
  return files;
}

}  // namespace flasheva
