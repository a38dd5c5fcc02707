import fick.Pipeline;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;

/** What tests/runtime/test_android.py asks of the Java class: BUNDLE, the file for the picture, PROMPT, STEPS, SEED. */
public final class Draw {
  public static void main(String[] arguments) throws Exception {
    String prompt = Files.readString(Path.of(arguments[2]));
    int steps = Integer.parseInt(arguments[3]);
    long seed = Long.parseLong(arguments[4]);
    List<String> said = new ArrayList<>();
    List<String> counted = new ArrayList<>();
    said.add("no file: " + failure(() -> new Pipeline("none-\ud83d\ude00.fick")));
    Pipeline pipeline = new Pipeline(arguments[0], 2, 0);
    said.add("size: " + pipeline.width + " x " + pipeline.height);
    said.add("no prompt: " + failure(() -> pipeline.draw(steps, 3, seed, null, null)));
    said.add("a class: " + failure(() -> pipeline.setClass(3)));
    said.add("dropped: " + pipeline.setPrompt("cat ".repeat(12) + "\ud83d\ude00", null));
    pipeline.setPrompt(prompt, "dog");
    byte[] drawn = pipeline.draw(steps, 3, seed, "ddim", (done, total) -> {
      counted.add(done + "/" + total);
      return false;
    });
    said.add("steps: " + counted);
    Files.write(Path.of(arguments[1]), drawn);
    said.add("sampler: " + failure(() -> pipeline.draw(steps, 3, seed, "best", null)));
    said.add("stopped: " + failure(() -> pipeline.draw(steps, 3, seed, null, (done, total) -> done == 1)));
    said.add("cancelled: " + failure(() -> pipeline.draw(steps, 3, seed, null, (done, total) -> {
      pipeline.cancel();
      return false;
    })));
    said.add("thrown: " + failure(() -> pipeline.draw(steps, 3, seed, null, (done, total) -> {
      throw new ArithmeticException("at " + done);
    })));
    pipeline.close();
    pipeline.close();
    pipeline.cancel();
    said.add("closed: " + failure(() -> pipeline.draw(steps, 3, seed, null, null)));
    System.out.write((String.join("\n", said) + "\n").getBytes(StandardCharsets.UTF_8));
    System.out.flush();
  }

  private static String failure(Runnable work) {
    try {
      work.run();
      return "nothing";
    } catch (CancellationException cancelled) {
      return "cancelled";
    } catch (RuntimeException error) {
      return error.getClass().getSimpleName() + ", " + error.getMessage();
    }
  }
}
