#include <array>

#include "src/config/config.h"

namespace flasheva {

namespace {

template <class Enum>
struct Name {
  Enum value;
  const char* text;
};

// One table per enumeration: a value added here is known to YAML, flags, config.json and messages.
template <class Enum>
struct Table;

template <>
struct Table<AttentionKind> {
  static constexpr auto names = std::to_array<Name<AttentionKind>>(
      {{AttentionKind::full, "full"}, {AttentionKind::sliding, "sliding"}, {AttentionKind::eva, "eva"}});
};

template <>
struct Table<WindowKind> {
  static constexpr auto names =
      std::to_array<Name<WindowKind>>({{WindowKind::block, "block"}, {WindowKind::sliding, "sliding"}});
};

template <>
struct Table<ChunkVisibility> {
  static constexpr auto names = std::to_array<Name<ChunkVisibility>>(
      {{ChunkVisibility::outside_window, "outside_window"}, {ChunkVisibility::all_past, "all_past"}});
};

template <>
struct Table<Adapter> {
  static constexpr auto names = std::to_array<Name<Adapter>>({{Adapter::none, "none"},
                                                              {Adapter::linear, "linear"},
                                                              {Adapter::linear_layernorm, "linear_layernorm"},
                                                              {Adapter::learned, "learned"}});
};

template <>
struct Table<Proposal> {
  static constexpr auto names =
      std::to_array<Name<Proposal>>({{Proposal::qk, "qk"}, {Proposal::k, "k"}, {Proposal::zero, "zero"}});
};

template <>
struct Table<ChunkBias> {
  static constexpr auto names = std::to_array<Name<ChunkBias>>(
      {{ChunkBias::none, "none"}, {ChunkBias::log_chunk, "log_chunk"}, {ChunkBias::learned, "learned"}});
};

template <>
struct Table<DeviceChoice> {
  static constexpr auto names = std::to_array<Name<DeviceChoice>>(
      {{DeviceChoice::automatic, "auto"}, {DeviceChoice::cpu, "cpu"}, {DeviceChoice::cuda, "cuda"}});
};

template <>
struct Table<Precision> {
  static constexpr auto names = std::to_array<Name<Precision>>(
      {{Precision::fp32, "fp32"}, {Precision::bf16, "bf16"}, {Precision::fp16, "fp16"}});
};

template <>
struct Table<Recompute> {
  static constexpr auto names = std::to_array<Name<Recompute>>(
      {{Recompute::none, "none"}, {Recompute::attention, "attention"}, {Recompute::block, "block"}});
};

template <>
struct Table<ScheduleKind> {
  static constexpr auto names = std::to_array<Name<ScheduleKind>>({{ScheduleKind::constant, "constant"},
                                                                   {ScheduleKind::linear, "linear"},
                                                                   {ScheduleKind::cosine, "cosine"}});
};

template <>
struct Table<SpikeAction> {
  static constexpr auto names = std::to_array<Name<SpikeAction>>(
      {{SpikeAction::log, "log"}, {SpikeAction::skip, "skip"}, {SpikeAction::rollback, "rollback"}});
};

template <class Enum>
const char* text_of(Enum value) {
  for (const auto& name : Table<Enum>::names)
    if (name.value == value) return name.text;
  return "?";
}

}  // namespace

template <class Enum>
std::optional<Enum> parse_name(const std::string& text) {
  for (const auto& name : Table<Enum>::names)
    if (text == name.text) return name.value;
  return std::nullopt;
}

template <class Enum>
std::vector<std::string> names_of() {
  std::vector<std::string> texts;
  for (const auto& name : Table<Enum>::names) texts.emplace_back(name.text);
  return texts;
}

#define FLASHEVA_NAMED(Enum)                                   \
  const char* to_string(Enum value) { return text_of(value); } \
  template std::optional<Enum> parse_name(const std::string&); \
  template std::vector<std::string> names_of<Enum>();

FLASHEVA_NAMED(AttentionKind)
FLASHEVA_NAMED(WindowKind)
FLASHEVA_NAMED(ChunkVisibility)
FLASHEVA_NAMED(Adapter)
FLASHEVA_NAMED(Proposal)
FLASHEVA_NAMED(ChunkBias)
FLASHEVA_NAMED(DeviceChoice)
FLASHEVA_NAMED(Precision)
FLASHEVA_NAMED(Recompute)
FLASHEVA_NAMED(ScheduleKind)
FLASHEVA_NAMED(SpikeAction)

#undef FLASHEVA_NAMED

}  // namespace flasheva
