package fick;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;

/**
 * Pictures from a bundle that holds a whole pipeline. Calls take turns, except {@link #cancel}, which stops the picture
 * in progress from any thread. What fails throws IllegalStateException with one sentence that says why.
 */
public final class Pipeline implements AutoCloseable {
  static {
    System.loadLibrary("fick");
  }

  /** Called before each step and after the last, on a thread of the pipeline's own. */
  public interface Progress {
    /** Whether to stop here. */
    boolean stop(long done, long total);
  }

  private static final long STACK_BYTES = 8 << 20; // kernels keep tiles there, and threads of Java have little

  public final int width;
  public final int height;

  private final Object alive = new Object();
  private long handle;

  public Pipeline(String path) {
    this(path, 0, 0);
  }

  /**
   * @param threads 0: as many as the process may use
   * @param memoryLimitBytes 0: none; weights that do not fit are read again at every step
   */
  public Pipeline(String path, int threads, long memoryLimitBytes) {
    handle = apart(() -> {
      long made = create(utf8(path), threads, memoryLimitBytes);
      if (made == 0) throw failed();
      return made;
    });
    long size = size(handle);
    width = (int) (size >> 32);
    height = (int) size;
  }

  /**
   * What to draw, and what not to (null: nothing in particular), for a bundle of a text-to-image pipeline.
   *
   * @return the end of the prompt that the text encoder has no room for, "" if all of it fits
   */
  public synchronized String setPrompt(String prompt, String negative) {
    return apart(() -> {
      byte[] dropped = prompt(open(), utf8(prompt), negative == null ? null : utf8(negative));
      if (dropped == null) throw failed();
      return new String(dropped, StandardCharsets.UTF_8);
    });
  }

  /** What to draw, for a bundle of a class-to-image pipeline. */
  public synchronized void setClass(long label) {
    apart(() -> {
      if (!label(open(), label)) throw failed();
      return null;
    });
  }

  /**
   * A picture: red, green and blue of each pixel, row by row.
   *
   * @param steps 0: the sampler's own number
   * @param guidance how closely to follow the prompt
   * @param seed the same seed, the same picture
   * @param sampler such as "ddim" or "dpm-solver++"; null: the bundle's own
   * @param progress null: nobody asks
   * @throws CancellationException if it was stopped
   */
  public synchronized byte[] draw(int steps, float guidance, long seed, String sampler, Progress progress) {
    return apart(() -> {
      byte[] pixels = new byte[3 * width * height];
      byte[] name = sampler == null ? null : utf8(sampler);
      if (draw(open(), steps, guidance, seed, name, progress, pixels)) return pixels;
      String reason = reason();
      if (reason.endsWith("was cancelled")) throw new CancellationException(reason);
      throw new IllegalStateException(reason);
    });
  }

  /** Stop the picture in progress. */
  public void cancel() {
    synchronized (alive) {
      if (handle != 0) interrupt(handle);
    }
  }

  /** Give the memory back, after the picture in progress. */
  @Override
  public synchronized void close() {
    synchronized (alive) {
      destroy(handle);
      handle = 0;
    }
  }

  private long open() {
    if (handle == 0) throw new IllegalStateException("the pipeline is closed");
    return handle;
  }

  /** On a thread with room for kernels. */
  private static <T> T apart(Callable<T> work) {
    FutureTask<T> task = new FutureTask<>(work);
    new Thread(null, task, "fick", STACK_BYTES).start();
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return task.get();
        } catch (InterruptedException ignored) {
          interrupted = true; // the native side must end before its arguments may go
        }
      }
    } catch (ExecutionException wrapped) {
      if (wrapped.getCause() instanceof RuntimeException) throw (RuntimeException) wrapped.getCause();
      if (wrapped.getCause() instanceof Error) throw (Error) wrapped.getCause();
      throw new IllegalStateException(wrapped.getCause());
    } finally {
      if (interrupted) Thread.currentThread().interrupt();
    }
  }

  private static RuntimeException failed() {
    return new IllegalStateException(reason());
  }

  private static String reason() {
    return new String(lastError(), StandardCharsets.UTF_8);
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static native byte[] lastError();

  private static native long create(byte[] path, int threads, long memoryLimitBytes);

  private static native void destroy(long handle);

  private static native long size(long handle);

  private static native byte[] prompt(long handle, byte[] prompt, byte[] negative);

  private static native boolean label(long handle, long label);

  private static native boolean draw(
      long handle, int steps, float guidance, long seed, byte[] sampler, Progress progress, byte[] pixels);

  private static native void interrupt(long handle);
}
