/* Lives that a process can have, one for each first argument; each says what it did, with its own stamps, on stdout:
 * lines of `WORD NANOSECONDS`, or `WORD NUMBER`. The kernel's stamps are checked against these. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *self;

static void say(const char *word, long long number)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s %lld\n", word, number);
	if (write(1, line, length) != length)
		abort();
}

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void stamp(const char *word)
{
	say(word, now());
}

static void pause_ms(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		;
}

static void *run_plain(void *unused)
{
	(void)unused;
	stamp("in-thread");
	execl(self, self, "plain", "20", "5", NULL);
	abort();
}

static void *end_all(void *unused)
{
	(void)unused;
	pause_ms(60);
	stamp("last");
	exit(7);
}

static void *end_all_when_told(void *unused)
{
	char byte;
	(void)unused;
	if (read(0, &byte, 1) != 1)
		abort();
	stamp("last");
	exit(7);
}

static void *end_alone(void *unused)
{
	(void)unused;
	pause_ms(30);
	stamp("last");
	return NULL;
}

static pthread_t begin(void *(*what)(void *))
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, what, NULL) != 0)
		abort();
	return thread;
}

/* A child that ends with `code`, waited for; says when it was forked, and after its end. */
static void child(int code)
{
	int status;
	stamp("before");
	pid_t pid = fork();
	if (pid == 0) {
		pause_ms(5);
		_exit(code);
	}
	stamp("after");
	say("pid", pid);
	waitpid(pid, &status, 0);
	stamp("waited");
	say("status", status);
}

/* Give the next process the pid `pid`, if nobody takes it first. */
static void wind_back(long pid)
{
	FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
	if (last == NULL || fprintf(last, "%ld", pid - 1) < 0 || fclose(last) != 0)
		abort();
}

int main(int argc, char **argv)
{
	const char *life = argc > 1 ? argv[1] : "";
	self = argv[0];
	setvbuf(stdout, NULL, _IONBF, 0);
	stamp("first");
	if (strcmp(life, "plain") == 0) { /* MS CODE */
		pause_ms(atol(argv[2]));
		stamp("last");
		_exit(atoi(argv[3]));
	} else if (strcmp(life, "twice") == 0) {
		pause_ms(20);
		execl(self, self, "plain", "20", "0", NULL);
	} else if (strcmp(life, "thread-execs") == 0) {
		begin(end_alone);
		begin(run_plain);
		pause();
	} else if (strcmp(life, "leader-first") == 0) {
		begin(end_all);
		pthread_exit(NULL);
	} else if (strcmp(life, "leader-first-told") == 0) { /* reads a byte before it ends */
		begin(end_all_when_told);
		pthread_exit(NULL);
	} else if (strcmp(life, "threads-alone") == 0) {
		begin(end_alone);
		pthread_exit(NULL);
	} else if (strcmp(life, "threads-before") == 0) {
		pthread_join(begin(end_alone), NULL);
		pause_ms(20);
		stamp("last");
		exit(3);
	} else if (strcmp(life, "vfork") == 0) {
		int status;
		stamp("before");
		pid_t pid = vfork();
		if (pid == 0) {
			execl(self, self, "plain", "20", "4", NULL);
			_exit(127);
		}
		stamp("after");
		say("pid", pid);
		waitpid(pid, &status, 0);
	} else if (strcmp(life, "fork") == 0) {
		child(6);
	} else if (strcmp(life, "same-pid") == 0) {
		/* Two children one after the other, with the same pid; others may be quicker than we are, so: until it is so. */
		for (int tries = 0; tries < 500; tries++) {
			long first = (long)getpid();
			int status;
			stamp("before");
			pid_t pid = fork();
			if (pid == 0)
				_exit(1);
			stamp("after");
			waitpid(pid, &status, 0);
			wind_back(pid);
			stamp("before");
			first = fork();
			if (first == 0)
				_exit(2);
			stamp("after");
			waitpid(first, &status, 0);
			say("pid", first);
			if (pid == first)
				return 0;
			say("again", tries);
		}
		return 1;
	} else if (strcmp(life, "storm") == 0) { /* COUNT */
		for (long left = atol(argv[2]); left > 0; left--) {
			pid_t pid = fork();
			if (pid == 0)
				_exit(0);
			waitpid(pid, NULL, 0);
		}
		stamp("last");
	} else {
		return 99;
	}
	return 0;
}
