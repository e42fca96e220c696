// Python bindings: arguments to kernels of the instruction set asked for, with the GIL released.
// sketchify_rt/kernels/native.py is the door and words the errors; what is checked here keeps a
// slip there from reading or writing outside of the arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef SKETCHIFY_X86
#include <cpuid.h>
#endif

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace py = pybind11;

namespace sketchify {
namespace {

struct Isa {
  const char* name;
  bool supported;
  decltype(&baseline::binarize) binarize;
  decltype(&baseline::dodge) dodge;
  decltype(&baseline::compose) compose;
  decltype(&baseline::look) look;
  decltype(&baseline::hint_cells) hint_cells;
  decltype(&baseline::hint_blur) hint_blur;
};

const std::vector<Isa>& all_isas() {
  static const std::vector<Isa> isas{
      {"baseline", true, baseline::binarize, baseline::dodge, baseline::compose, baseline::look,
       baseline::hint_cells, baseline::hint_blur},
#ifdef SKETCHIFY_X86
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::binarize,
       avx2::dodge, avx2::compose, avx2::look, avx2::hint_cells, avx2::hint_blur},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma"),
       avx512::binarize, avx512::dodge, avx512::compose, avx512::look, avx512::hint_cells,
       avx512::hint_blur},
#endif
  };
  return isas;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa& isa : all_isas())
    if (isa.supported) names.emplace_back(isa.name);
  return names;
}

bool vnni() {
#ifdef SKETCHIFY_X86
  // By number, since Clang before 19 does not know AVX-VNNI by name: leaf 7, 1, EAX, bit 4.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool avx_vnni = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
  return __builtin_cpu_supports("avx512vnni") || (__builtin_cpu_supports("avx2") && avx_vnni);
#else
  return false;
#endif
}

const Isa& find(const std::string& name) {
  for (const Isa& isa : all_isas())
    if (isa.supported && isa.name == name) return isa;
  throw std::invalid_argument("no such instruction set: " + name);
}

using Bytes = py::array_t<std::uint8_t, 0>;
using Floats = py::array_t<float, 0>;

template <class T>
Image<T> image(T* data, const py::array& array) {
  if (array.ndim() != 2 || array.size() == 0 || array.strides(1) != array.itemsize())
    throw std::invalid_argument("needs a 2-D array, not empty, with contiguous rows");
  return {data, array.strides(0), array.shape(0), array.shape(1)};
}

Page page(Bytes& out, const py::array& source) {
  if (out.ndim() != 2 || out.shape(0) != source.shape(0) || out.shape(1) != source.shape(1))
    throw std::invalid_argument("out and source differ in shape");
  return image(out.mutable_data(), out);  // mutable_data throws where out is read-only
}

// Not py::gil_scoped_release: when the interpreter ends meanwhile, taking the GIL back ends this
// thread by unwinding its stack, and that must not pass through a destructor.
template <class Work>
void without_gil(const Work& work) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    work();
  } catch (const std::exception&) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

void binarize(const Bytes& gray, Bytes& out, int threads, const std::string& isa) {
  const Gray from = image(gray.data(), gray);
  const Page to = page(out, gray);
  const auto kernel = find(isa).binarize;
  without_gil(
      [&] { parallel_rows(threads, from.height, [&](Rows rows) { kernel(from, to, rows); }); });
}

void dodge(const Bytes& gray, Bytes& out, int strength, int threads, const std::string& isa) {
  const Gray from = image(gray.data(), gray);
  const Page to = page(out, gray);
  const auto kernel = find(isa).dodge;
  without_gil([&] {
    parallel_rows(threads, from.height, [&](Rows rows) { kernel(from, to, strength, rows); });
  });
}

void compose(const Floats& tones, Bytes& out, int strength, int threads, const std::string& isa) {
  const Tones from = image(tones.data(), tones);
  const Page to = page(out, tones);
  const auto kernel = find(isa).compose;
  without_gil([&] {
    parallel_rows(threads, from.height, [&](Rows rows) { kernel(from, to, strength, rows); });
  });
}

void look(const Bytes& gray, Bytes& out, int black, const Bytes& tables, int threads,
          const std::string& isa) {
  const Gray from = image(gray.data(), gray);
  const Page to = page(out, gray);
  if (tables.ndim() != 1 || tables.size() != 48 + 256 || tables.strides(0) != 1)
    throw std::invalid_argument("tables must have 304 bytes");
  const auto kernel = find(isa).look;
  without_gil([&] {
    parallel_rows(threads, from.height,
                  [&](Rows rows) { kernel(from, to, black, tables.data(), rows); });
  });
}

void hint(const Bytes& binary, const Bytes& tones, Bytes& out, int threads,
          const std::string& name) {
  const Gray from = image(binary.data(), binary), drawing = image(tones.data(), tones);
  const Page to = image(out.mutable_data(), out);
  if (drawing.height != from.height || drawing.width != from.width)
    throw std::invalid_argument("binary and tones differ in shape");
  if (to.height != (from.height + 7) / 8 || to.width != (from.width + 7) / 8)
    throw std::invalid_argument("out must have one value per 8 x 8 pixels");
  const Isa& isa = find(name);
  // Bands of pixels to those of cells: each cell belongs to the band in which it begins.
  const auto parallel_cells = [&](const auto& work) {
    parallel_rows(threads, from.height,
                  [&](Rows rows) { work(Rows{(rows.begin + 7) / 8, (rows.end + 7) / 8}); });
  };
  without_gil([&] {
    const auto number = static_cast<std::size_t>(to.height * to.width);
    std::vector<std::int32_t> cells(number + 16);  // hint_blur may read 64 bytes after them
    parallel_cells([&](Rows rows) { isa.hint_cells(from, drawing, cells.data(), rows); });
    std::int64_t count = 0, darkness = 0;
    for (const std::int32_t cell : cells) {
      count += cell >> 16;
      darkness += cell & 0xffff;
    }
    const auto mean = count ? static_cast<std::int32_t>((512 * darkness + count) / (2 * count)) : 0;
    parallel_cells([&](Rows rows) {
      if (count) return isa.hint_blur(cells.data(), mean, to, rows);
      for (std::ptrdiff_t y = rows.begin; y < rows.end; ++y)
        std::fill_n(to.data + y * to.stride, to.width, std::uint8_t{0});
    });
  });
}

}  // namespace
}  // namespace sketchify

PYBIND11_MODULE(_native, m) {
  using namespace pybind11::literals;
  m.doc() = "Kernels in C++; sketchify_rt.kernels.native is their door.";
  m.def("isas", &sketchify::isas, "Instruction sets this processor can run, the plainest first.");
  m.def("vnni", &sketchify::vnni, "Whether the processor has AVX-512 VNNI or AVX-VNNI.");
  m.def("binarize", &sketchify::binarize, "gray"_a.noconvert(), "out"_a.noconvert(), "threads"_a,
        "isa"_a);
  m.def("dodge", &sketchify::dodge, "gray"_a.noconvert(), "out"_a.noconvert(), "strength"_a,
        "threads"_a, "isa"_a);
  m.def("compose", &sketchify::compose, "tones"_a.noconvert(), "out"_a.noconvert(), "strength"_a,
        "threads"_a, "isa"_a);
  m.def("look", &sketchify::look, "gray"_a.noconvert(), "out"_a.noconvert(), "black"_a,
        "tables"_a.noconvert(), "threads"_a, "isa"_a);
  m.def("hint", &sketchify::hint, "binary"_a.noconvert(), "tones"_a.noconvert(),
        "out"_a.noconvert(), "threads"_a, "isa"_a);
}
