// What a person sees: lines on standard error, and on a terminal one progress line that overwrites itself.
#pragma once

#include <string>

namespace flasheva {

void log_line(const std::string& text);
void log_warning(const std::string& text);  // "warning: TEXT"

// "flasheva: TEXT" on one line, whatever file names the text holds; nothing if it is empty. Never silenced.
void log_error(std::string text);

// From now on nothing else is logged: of many ranks, the first one speaks.
void silence_log();

// Shown only where standard error is a terminal; the next line that is logged takes its place.
void show_progress(const std::string& text);
void clear_progress();  // leaves its line empty, for what is printed next
bool progress_is_visible();

}  // namespace flasheva
