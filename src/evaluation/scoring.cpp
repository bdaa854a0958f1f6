#include "src/evaluation/scoring.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "src/core/error.h"
#include "src/core/log.h"

namespace flasheva {

namespace {

constexpr std::int64_t tokens_per_batch = 4096;

// The longest row, rounded up to whole chunks: many short rows then never have more chunks than few long
// ones.
Extent largest_batch(const ModelConfig& config, std::int64_t longest) {
  std::int64_t chunk = 1;
  for (const LayerAttention& layer : config.attention)
    if (layer.kind == AttentionKind::eva) chunk = chunk == 1 ? layer.chunk : std::min(chunk, layer.chunk);
  const std::int64_t tokens = (longest + chunk - 1) / chunk * chunk;
  return {std::max<std::int64_t>(1, tokens_per_batch / tokens), tokens};
}

// A batch in host memory, its targets counted where they belong to a continuation.
struct RowBatch {
  std::vector<std::int32_t> tokens, targets;
  std::vector<std::uint8_t> mask;

  void clear(std::int64_t size) {
    tokens.assign(static_cast<std::size_t>(size), 0);
    targets.assign(static_cast<std::size_t>(size), 0);
    mask.assign(static_cast<std::size_t>(size), 0);
  }

  // Row of `length` tokens from place `at` on.
  void put(std::int64_t at, std::int64_t length, const std::vector<std::int32_t>& context,
           const std::vector<std::int32_t>& continuation) {
    std::vector<std::int32_t> whole = context;
    whole.insert(whole.end(), continuation.begin(), continuation.end());
    const auto first = whole.end() - (length + 1);
    std::copy(first, whole.end() - 1, tokens.begin() + at);
    std::copy(first + 1, whole.end(), targets.begin() + at);
    std::fill_n(mask.begin() + at + length - std::ssize(continuation), continuation.size(), 1);
  }

  // Over the continuation of that row.
  ContinuationScore sum(const TokenLosses& losses, std::int64_t at, std::int64_t length) const {
    ContinuationScore out{0, true};
    for (auto i = static_cast<std::size_t>(at); i < static_cast<std::size_t>(at + length); ++i) {
      if (mask[i] == 0) continue;
      out.log_likelihood -= static_cast<double>(losses.nats[i]);
      out.greedy = out.greedy && losses.correct[i] != 0;
    }
    return out;
  }

  TokenBatch view(const Extent& extent) {
    const std::int64_t N = extent.rows();
    return {extent, view_of(tokens.data(), {N}), view_of(targets.data(), {N}), view_of(mask.data(), {N})};
  }
};

}  // namespace

ScoringPlan plan_scoring(const std::vector<Question>& questions, const ModelConfig& config,
                         std::int64_t max_tokens) {
  ScoringPlan plan;
  for (std::size_t q = 0; q < questions.size(); ++q)
    for (std::size_t c = 0; c < questions[q].choices.size(); ++c) {
      const std::int64_t tokens =
          std::ssize(questions[q].context) + std::ssize(questions[q].choices[c].tokens) - 1;
      plan.rows.push_back({q, c, std::min(tokens, max_tokens)});
      plan.truncated += tokens > max_tokens;
    }
  std::stable_sort(plan.rows.begin(), plan.rows.end(),
                   [](const auto& a, const auto& b) { return a.tokens > b.tokens; });
  plan.largest = largest_batch(config, plan.rows.front().tokens);
  return plan;
}

Scores score(InferenceModel& model, const std::vector<Question>& questions, const ScoringPlan& plan) {
  Scores scores;
  for (const Question& question : questions) scores.emplace_back(question.choices.size());
  RowBatch batch;
  for (std::size_t first = 0; first < plan.rows.size();) {
    const std::int64_t T = plan.rows[first].tokens;
    const auto left = static_cast<std::int64_t>(plan.rows.size() - first);
    const std::int64_t B = std::min(plan.largest.rows() / T, left);
    const std::span rows(plan.rows.data() + first, static_cast<std::size_t>(B));

    batch.clear(B * T);
    for (std::int64_t at = 0; const auto& [q, c, tokens] : rows) {
      batch.put(at, tokens, questions[q].context, questions[q].choices[c].tokens);
      at += T;
    }
    const TokenLosses losses = model.token_losses(batch.view({B, T}));
    for (std::int64_t at = 0; const auto& [q, c, tokens] : rows) {
      scores[q][c] = batch.sum(losses, at, tokens);
      at += T;
      if (!std::isfinite(scores[q][c].log_likelihood))
        fail(ExitCode::numeric,
             "question of line {}: its log-likelihood is {}; the model's weights are broken",
             questions[q].line, scores[q][c].log_likelihood);
    }
    first += rows.size();
    show_progress(fmt::format("{} of {} rows", first, plan.rows.size()));
  }
  clear_progress();
  return scores;
}

}  // namespace flasheva
