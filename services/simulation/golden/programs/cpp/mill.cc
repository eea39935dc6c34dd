// A small mill of numbers and words whose only purpose is to be profiled by gperftools. It has templates, an anonymous
// namespace, operators, lambdas, inlined chains and recursion: the names a C++ profile is known for.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace mill {
namespace {

// Small enough to be inlined into Stone::operator(), which is inlined into grind.
inline uint64_t turn(uint64_t grain, unsigned by) {
    for (unsigned i = 0; i < 6; ++i) {
        grain = (grain ^ (grain >> 33)) * 0xff51afd7ed558ccdULL + by;
    }
    return grain;
}

template <typename T>
struct Stone {
    unsigned weight;
    T operator()(T grain) const { return static_cast<T>(turn(grain, weight)); }
};

}  // namespace

template <typename T>
__attribute__((noinline)) T grind(const std::vector<T>& grains, unsigned weight) {
    Stone<T> stone{weight};
    T sum = 0;
    for (const T& grain : grains) sum += stone(grain);
    return sum;
}

// Direct recursion.
__attribute__((noinline)) uint64_t sift(const uint64_t* begin, const uint64_t* end) {
    if (end - begin < 64) {
        uint64_t sum = 0;
        for (; begin != end; ++begin) sum += turn(*begin, 3);
        return sum;
    }
    const uint64_t* middle = begin + (end - begin) / 2;
    const uint64_t left = sift(begin, middle);
    return left ^ sift(middle, end);
}

class Sack {
  public:
    __attribute__((noinline)) void fill(const std::vector<uint64_t>& grains) {
        for (uint64_t grain : grains) ++counts_["grain-" + std::to_string(grain % 101)];
    }
    __attribute__((noinline)) std::vector<std::string> sorted() const {
        std::vector<std::string> names;
        for (const auto& entry : counts_) names.push_back(entry.first);
        std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) { return a > b; });
        return names;
    }

  private:
    std::map<std::string, int> counts_;
};

}  // namespace mill

int main() {
    std::vector<uint64_t> grains(20000);
    for (size_t i = 0; i < grains.size(); ++i) grains[i] = i * 2654435761u;
    uint64_t sum = 0;
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2500);
    while (std::chrono::steady_clock::now() < until) {
        mill::Sack sack;
        sack.fill(grains);
        sum += sack.sorted().size();
        for (unsigned weight = 0; weight < 30; ++weight) sum += mill::grind(grains, weight);
        for (unsigned times = 0; times < 30; ++times) sum += mill::sift(grains.data(), grains.data() + grains.size());
    }
    std::printf("%llu\n", static_cast<unsigned long long>(sum));
}
