// What a person sees: lines on standard error, and on a terminal one progress line that overwrites itself.
#pragma once

#include <string>

namespace flasheva {

void log_line(const std::string& text);
void log_warning(const std::string& text);  // "warning: TEXT"

// Shown only where standard error is a terminal; the next log_line takes its place.
void show_progress(const std::string& text);
bool progress_is_visible();

}  // namespace flasheva
