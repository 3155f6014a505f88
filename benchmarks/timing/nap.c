/* What is measured: `nap MS` sleeps that long and ends; `nap spin` keeps a core busy until its parent is gone. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (strcmp(argv[1], "spin") == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            ;
    }
    long ms = strtol(argv[1], NULL, 10);
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    if (ms > 0)
        while (nanosleep(&left, &left) != 0)
            ;
    return 0;
}
