/* jni.h: of the Java Native Interface what fick_jni.c calls, each function in the place that the interface's
 * specification gives it. Where a JDK or an NDK is at hand its own jni.h serves as well.
 */
#ifndef FICK_JNI_H
#define FICK_JNI_H

#include <stdint.h>

#define JNIEXPORT __attribute__((visibility("default")))
#ifdef FICK_SOFT_FLOATS_H
#define JNICALL __attribute__((pcs("aapcs")))
#else
#define JNICALL
#endif
#define JNI_ABORT 2

typedef uint8_t jboolean;
typedef int8_t jbyte;
typedef int32_t jint;
typedef int64_t jlong;
typedef float jfloat;
typedef jint jsize;
typedef struct fick_object *jobject;
typedef jobject jclass, jbyteArray;
typedef struct fick_method *jmethodID;

typedef union {
  jboolean z;
  jint i;
  jlong j;
  jobject l;
} jvalue;

typedef const struct JNINativeInterface_ *JNIEnv;

struct JNINativeInterface_ {
  void *to_30[31];
  jclass (*GetObjectClass)(JNIEnv *, jobject);
  void *to_32;
  jmethodID (*GetMethodID)(JNIEnv *, jclass, const char *, const char *);
  void *to_38[5];
  jboolean (*CallBooleanMethodA)(JNIEnv *, jobject, jmethodID, const jvalue *);
  void *to_170[131];
  jsize (*GetArrayLength)(JNIEnv *, jobject);
  void *to_175[4];
  jbyteArray (*NewByteArray)(JNIEnv *, jsize);
  void *to_183[7];
  jbyte *(*GetByteArrayElements)(JNIEnv *, jbyteArray, jboolean *);
  void *to_191[7];
  void (*ReleaseByteArrayElements)(JNIEnv *, jbyteArray, jbyte *, jint);
  void *to_199[7];
  void (*GetByteArrayRegion)(JNIEnv *, jbyteArray, jsize, jsize, jbyte *);
  void *to_207[7];
  void (*SetByteArrayRegion)(JNIEnv *, jbyteArray, jsize, jsize, const jbyte *);
  void *to_227[19];
  jboolean (*ExceptionCheck)(JNIEnv *);
};

#endif
