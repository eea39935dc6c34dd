import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * A pretend brewery whose only purpose is to be profiled by async-profiler: recursion, lambdas, streams, generics, string building,
 * regular expressions, a lock and two named threads.
 */
public final class Brewery {
    private static final Pattern NUMBER = Pattern.compile("hop-(\\d+)");
    private static final Object LOCK = new Object();
    private static long total;

    private interface Step<T> {
        long run(T input);
    }

    /** Plain recursion. */
    private static long ferment(int depth) {
        return depth < 2 ? depth : ferment(depth - 1) + ferment(depth - 2);
    }

    private static long mash(List<String> grains) {
        Map<String, Integer> counts = new HashMap<>();
        for (String grain : grains) {
            counts.merge(grain, 1, Integer::sum);
        }
        return counts.values().stream().mapToLong(Integer::longValue).sum();
    }

    private static long boil(List<String> grains) {
        return grains.stream()
                .map(grain -> NUMBER.matcher(grain).replaceAll("h$1"))
                .collect(Collectors.groupingBy(String::length, Collectors.counting()))
                .values().stream().reduce(0L, Long::sum);
    }

    private static long label(List<String> grains) {
        StringBuilder text = new StringBuilder();
        for (String grain : grains) {
            text.append(grain).append(';');
        }
        return text.toString().hashCode();
    }

    private static void shift(long until) {
        List<Step<List<String>>> steps = List.of(Brewery::mash, Brewery::boil, Brewery::label, grains -> ferment(18));
        while (System.nanoTime() < until) {
            List<String> grains = new ArrayList<>();
            for (int i = 0; i < 500; i++) {
                grains.add("hop-" + i % 83);
            }
            for (Step<List<String>> step : steps) {
                long result = step.run(grains);
                synchronized (LOCK) {
                    total += result;
                }
            }
        }
    }

    public static void main(String[] args) throws InterruptedException {
        long until = System.nanoTime() + 3_500_000_000L;
        Thread early = new Thread(() -> shift(until), "early shift");
        Thread late = new Thread(() -> shift(until), "late shift");
        early.start();
        late.start();
        early.join();
        late.join();
        System.err.println(total);
    }
}
