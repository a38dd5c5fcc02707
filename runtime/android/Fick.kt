package fick

import android.content.Context
import android.graphics.Bitmap
import java.io.File

/**
 * A bundle of the app's assets as a file, which is what a pipeline reads: copied at the first call, and again after the
 * app was updated. Takes a while, so call it off the main thread.
 */
fun Context.bundle(name: String): File {
    val file = File(filesDir, name)
    val updated = packageManager.getPackageInfo(packageName, 0).lastUpdateTime
    if (file.exists() && file.lastModified() >= updated) return file
    val partial = File.createTempFile(name, null, filesDir)
    try {
        assets.open(name).use { from -> partial.outputStream().use { to -> from.copyTo(to) } }
        check(partial.renameTo(file)) { "cannot write $file" }
    } finally {
        partial.delete()
    }
    return file
}

/** A picture of [prompt]. Takes seconds, so call it off the main thread; [progress] returns true to stop. */
fun Pipeline.picture(
    prompt: String,
    negative: String? = null,
    steps: Int = 20,
    guidance: Float = 5f,
    seed: Long = 0,
    sampler: String? = null,
    progress: Pipeline.Progress? = null,
): Bitmap {
    setPrompt(prompt, negative)
    val rgb = draw(steps, guidance, seed, sampler, progress)
    val colors = IntArray(width * height) { pixel ->
        val (red, green, blue) = IntArray(3) { rgb[3 * pixel + it].toInt() and 0xff }
        (0xff shl 24) or (red shl 16) or (green shl 8) or blue
    }
    return Bitmap.createBitmap(colors, width, height, Bitmap.Config.ARGB_8888)
}
