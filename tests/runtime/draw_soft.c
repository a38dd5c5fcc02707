/* Calls the native methods of Pipeline.java on 32-bit Arm as Android's Java does, and writes the picture's pixels.
 *
 *     draw LIBC LIBM LIBFICK BUNDLE OUT.rgb PROMPT STEPS SEED
 *
 * The three libraries find each other first and this program's last. An array is a size and what it points to.
 */
#define _GNU_SOURCE
#define FICK_SOFT_FLOATS_H /* jni.h's calls hand floats over in integer registers */
#include <dlfcn.h>
#include <jni.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fick_object {
  jsize size;
  jbyte *bytes;
};

static jsize length(JNIEnv *env, jobject array) { return (void)env, array->size; }
static void read(JNIEnv *env, jbyteArray array, jsize from, jsize size, jbyte *to) {
  (void)env;
  memcpy(to, array->bytes + from, (size_t)size);
}
static void write(JNIEnv *env, jbyteArray array, jsize from, jsize size, const jbyte *bytes) {
  (void)env;
  memcpy(array->bytes + from, bytes, (size_t)size);
}
static jbyteArray make(JNIEnv *env, jsize size) {
  jbyteArray made = calloc(1, sizeof *made);
  (void)env;
  *made = (struct fick_object){size, calloc(1, (size_t)size + 1)};
  return made;
}
static jbyte *elements(JNIEnv *env, jbyteArray array, jboolean *copied) {
  (void)env, (void)copied;
  return array->bytes;
}
static void release(JNIEnv *env, jbyteArray array, jbyte *bytes, jint mode) {
  (void)env, (void)array, (void)bytes, (void)mode;
}

static jbyteArray text(const char *characters) {
  jbyteArray made = make(NULL, (jsize)strlen(characters));
  memcpy(made->bytes, characters, strlen(characters));
  return made;
}

int main(int count, char **arguments) {
  void *library = NULL;
  if (count != 9) return 2;
  for (int i = 1; i < 4; i++) {
    library = dlopen(arguments[i], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!library) return fprintf(stderr, "%s\n", dlerror()), 2;
  }
#define METHOD(type, name, ...) \
  JNICALL type (*name)(JNIEnv *, jclass, __VA_ARGS__) = \
      (JNICALL type (*)(JNIEnv *, jclass, __VA_ARGS__))dlsym(library, "Java_fick_Pipeline_" #name)
  METHOD(jlong, create, jbyteArray, jint, jlong);
  METHOD(jlong, size, jlong);
  METHOD(jbyteArray, prompt, jlong, jbyteArray, jbyteArray);
  METHOD(jboolean, draw, jlong, jint, jfloat, jlong, jbyteArray, jobject, jbyteArray);
  METHOD(void, destroy, jlong);
  JNICALL jbyteArray (*lastError)(JNIEnv *, jclass) =
      (JNICALL jbyteArray (*)(JNIEnv *, jclass))dlsym(library, "Java_fick_Pipeline_lastError");
  const struct JNINativeInterface_ functions = {
      .GetArrayLength = length, .GetByteArrayRegion = read, .SetByteArrayRegion = write, .NewByteArray = make,
      .GetByteArrayElements = elements, .ReleaseByteArrayElements = release};
  JNIEnv env = &functions;
  jlong pipeline = create(&env, NULL, text(arguments[4]), 2, 0);
  jlong extent = pipeline ? size(&env, NULL, pipeline) : 0;
  jbyteArray pixels = make(&env, (jsize)(3 * (extent >> 32) * (int32_t)extent));
  if (!pipeline || !prompt(&env, NULL, pipeline, text(arguments[6]), NULL) ||
      !draw(&env, NULL, pipeline, atoi(arguments[7]), 3.0f, atoll(arguments[8]), NULL, NULL, pixels)) {
    return fprintf(stderr, "%s\n", (char *)lastError(&env, NULL)->bytes), 1;
  }
  destroy(&env, NULL, pipeline);
  FILE *file = fopen(arguments[5], "wb");
  if (!file || fwrite(pixels->bytes, 1, (size_t)pixels->size, file) != (size_t)pixels->size) return 2;
  return fclose(file) != 0;
}
