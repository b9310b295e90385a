// Runs kernels of one program list on the machine it is compiled for.
// stdin:  i64 programs; for each: i64 buffers, then per buffer (i64 bytes, content);
//         i64 steps, then per step (i64 kernel, i64 chunks, i64 slots, then per slot (i64 buffer or -1,
//         i64 value: an offset into the buffer, or the number itself));
//         i64 results, then per result i64 buffer.
// stdout: the content of each result's buffer.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*kernel)(void *, int, int, int);
extern const kernel kernels[];

static int64_t number(void) {
    int64_t n;
    if (fread(&n, 8, 1, stdin) != 1) exit(3);
    return n;
}

int main(void) {
    int64_t programs = number();
    while (programs--) {
        int64_t count = number();
        char **buffers = malloc((count + 1) * sizeof *buffers);
        int64_t *sizes = malloc((count + 1) * sizeof *sizes);
        for (int64_t i = 0; i < count; i++) {
            sizes[i] = number();
            buffers[i] = aligned_alloc(64, (sizes[i] + 191) & ~(int64_t)63);
            if (sizes[i] && fread(buffers[i], sizes[i], 1, stdin) != 1) exit(4);
        }
        for (int64_t steps = number(); steps; steps--) {
            int64_t which = number(), chunks = number(), slots = number();
            int64_t *args = malloc((slots + 1) * 8);
            for (int64_t i = 0; i < slots; i++) {
                int64_t buffer = number(), value = number();
                args[i] = buffer < 0 ? value : (int64_t)(buffers[buffer] + value);
            }
            for (int chunk = 0; chunk < chunks; chunk++) kernels[which](args, chunk, chunks, 0);
            free(args);
        }
        for (int64_t results = number(); results; results--) {
            int64_t i = number();
            fwrite(buffers[i], 1, sizes[i], stdout);
        }
        for (int64_t i = 0; i < count; i++) free(buffers[i]);
        free(buffers);
        free(sizes);
    }
    return 0;
}
