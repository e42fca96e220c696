// Python bindings: arguments to kernels of the instruction set asked for, with the GIL released.
// sketchify_rt/kernels/native.py is the door and words the errors; what is checked here keeps a
// slip there from reading or writing outside of the arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef SKETCHIFY_X86
#include <cpuid.h>
#endif

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
};

const std::vector<Isa>& all_isas() {
  static const std::vector<Isa> isas{
      {"baseline", true, baseline::binarize, baseline::dodge, baseline::compose},
#ifdef SKETCHIFY_X86
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::binarize,
       avx2::dodge, avx2::compose},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma"),
       avx512::binarize, avx512::dodge, avx512::compose},
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
}
