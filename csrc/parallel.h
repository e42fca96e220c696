// Bands of rows on a bounded number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

#include "kernels.h"

namespace sketchify {

template <class Work>
void parallel_rows(int threads, std::ptrdiff_t height, const Work& work) {
  const std::ptrdiff_t n = std::min<std::ptrdiff_t>(threads, height);
  std::vector<std::jthread> others;
  for (std::ptrdiff_t i = 1; i < n; ++i)
    others.emplace_back([=, &work] { work(Rows{height * i / n, height * (i + 1) / n}); });
  work(Rows{0, height / n});
}

}  // namespace sketchify
