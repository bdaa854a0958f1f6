// The whole recipe: phases one after another, validation, checkpoints, resume, and the model folder at the
// end.
//
// The output folder:
//     run.json           config and machine of the last start
//     metrics.jsonl      one object a logged step or validation
//     events.out.*       the same for TensorBoard
//     checkpoints/       see io/checkpoint.h
//     tokenizer/         the run's tokenizer files, where it has a tokenizer
//     model/             the finished model
#pragma once

#include "kernels/ops.h"
#include "src/config/config.h"
#include "src/config/model_config.h"
#include "src/distributed/communicator.h"

namespace flasheva {

// The model a run trains: architecture or folder, with the attention that model.attention asks for.
// `before`, where not null, becomes the folder's own config (the same model before the swap).
ModelConfig resolve_model(const Config& config, ModelConfig* before = nullptr);

enum class TrainOutcome { finished, already_finished, preempted };

// Runs the phases, going on from the newest valid checkpoint of config.run.output; `fresh` moves an earlier
// run aside instead. A stop signal (SIGTERM, SIGINT, SIGUSR1) ends the current step, saves and returns
// preempted.
TrainOutcome train(const Config& config, Ops& ops, Communicator& communicator, bool fresh);

}  // namespace flasheva
