/** A program to be looked at by the end-to-end tests: work that a profile must show by name. */
public class Busy {
    static volatile long kept;

    static long burnCpuHere(int rounds) {
        long sum = 0;
        for (int i = 0; i < rounds; i++) {
            sum += Long.toString(i * 31L).hashCode();
        }
        return sum;
    }

    public static void main(String[] arguments) throws InterruptedException {
        while (true) {
            kept = burnCpuHere(200_000);
            Thread.sleep(20);
        }
    }
}
