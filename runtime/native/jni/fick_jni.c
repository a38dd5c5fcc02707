/* fick_jni.c: the native methods of the Java class fick.Pipeline.
 *
 * Texts cross as bytes of UTF-8: the strings of the interface are in an encoding of Java's own, in which an emoji is
 * not what it is elsewhere. Nothing is thrown here. What fails returns nothing, and Java asks for the sentence about
 * it.
 */
#include <jni.h>
#include <stdlib.h>
#include <string.h>

#include "fick_pipeline.h"

#define METHOD(type, name) JNIEXPORT type JNICALL Java_fick_Pipeline_##name
#define DECLARED(type, name, ...) \
  METHOD(type, name)(__VA_ARGS__); \
  METHOD(type, name)(__VA_ARGS__)

static fick_pipeline *of(jlong handle) { return (fick_pipeline *)(intptr_t)handle; }

/* A text with a zero at its end, to be freed; NULL where there is none. */
static char *text_of(JNIEnv *env, jbyteArray bytes) {
  if (!bytes) return NULL;
  jsize size = (*env)->GetArrayLength(env, bytes);
  char *text = malloc((size_t)size + 1);
  if (!text) return NULL;
  (*env)->GetByteArrayRegion(env, bytes, 0, size, (jbyte *)text);
  text[size] = 0;
  return text;
}

static jbyteArray bytes_of(JNIEnv *env, const char *text) {
  jsize size = (jsize)strlen(text);
  jbyteArray bytes = (*env)->NewByteArray(env, size);
  if (bytes) (*env)->SetByteArrayRegion(env, bytes, 0, size, (const jbyte *)text);
  return bytes;
}

DECLARED(jbyteArray, lastError, JNIEnv *env, jclass self) {
  (void)self;
  return bytes_of(env, fick_last_error());
}

DECLARED(jlong, create, JNIEnv *env, jclass self, jbyteArray path, jint threads, jlong memory_limit_bytes) {
  fick_pipeline_options options = {threads, 0, memory_limit_bytes > 0 ? (uint64_t)memory_limit_bytes : 0, 0};
  fick_pipeline *made = NULL;
  char *place = text_of(env, path);
  (void)self;
  fick_pipeline_create(place, &options, &made);
  free(place);
  return (jlong)(intptr_t)made;
}

DECLARED(void, destroy, JNIEnv *env, jclass self, jlong handle) {
  (void)env;
  (void)self;
  fick_pipeline_destroy(of(handle));
}

/* Width in the high half, height in the low. */
DECLARED(jlong, size, JNIEnv *env, jclass self, jlong handle) {
  int32_t width = 0, height = 0;
  (void)env;
  (void)self;
  fick_pipeline_size(of(handle), &width, &height);
  return (jlong)width << 32 | height;
}

/* What did not fit into the text encoder, or NULL if it failed. */
DECLARED(jbyteArray, prompt, JNIEnv *env, jclass self, jlong handle, jbyteArray prompt, jbyteArray negative) {
  char *wanted = text_of(env, prompt), *unwanted = text_of(env, negative);
  (void)self;
  fick_status status = fick_pipeline_set_prompt(of(handle), wanted, unwanted);
  free(wanted);
  free(unwanted);
  return status == FICK_OK ? bytes_of(env, fick_pipeline_dropped(of(handle))) : NULL;
}

DECLARED(jboolean, label, JNIEnv *env, jclass self, jlong handle, jlong label) {
  (void)env;
  (void)self;
  return fick_pipeline_set_class(of(handle), label) == FICK_OK;
}

typedef struct {
  JNIEnv *env;
  jobject listener;
  jmethodID method;
} listening;

static int32_t tell(uint64_t done, uint64_t total, void *user) {
  const listening *one = user;
  JNIEnv *env = one->env;
  jvalue counts[2] = {{.j = (jlong)done}, {.j = (jlong)total}};
  jboolean stop = (*env)->CallBooleanMethodA(env, one->listener, one->method, counts);
  return stop || (*env)->ExceptionCheck(env);
}

/* progress may be null; what it throws cancels the picture and goes on from here. */
DECLARED(jboolean, draw, JNIEnv *env, jclass self, jlong handle, jint steps, jfloat guidance, jlong seed,
         jbyteArray sampler, jobject progress, jbyteArray pixels) {
  listening one = {env, progress, NULL};
  (void)self;
  if (progress) {
    one.method = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, progress), "stop", "(JJ)Z");
    if (!one.method) return 0;
  }
  char *name = text_of(env, sampler);
  fick_drawing drawing = {steps, guidance, name, (uint64_t)seed, NULL, 0};
  jbyte *held = (*env)->GetByteArrayElements(env, pixels, NULL);
  fick_status status = FICK_ERROR_MEMORY;
  if (held) {
    fick_pipeline_set_progress(of(handle), progress ? tell : NULL, &one);
    status = fick_pipeline_draw(of(handle), &drawing, (uint8_t *)held, (uint64_t)(*env)->GetArrayLength(env, pixels));
    fick_pipeline_set_progress(of(handle), NULL, NULL);
    (*env)->ReleaseByteArrayElements(env, pixels, held, status == FICK_OK ? 0 : JNI_ABORT);
  }
  free(name);
  return status == FICK_OK;
}

DECLARED(void, interrupt, JNIEnv *env, jclass self, jlong handle) {
  (void)env;
  (void)self;
  fick_pipeline_cancel(of(handle));
}
