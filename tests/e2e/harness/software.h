/* Real programs around the daemon: clients that are run to their end, servers that become backends, and files to move
 * from one to the other. What goes wrong fails the running test. */
#ifndef HARNESS_SOFTWARE_H
#define HARNESS_SOFTWARE_H

#include "harness/world.h"

#define SH         "/bin/sh"
#define BASH       "/bin/bash"
#define CURL       "/usr/bin/curl"
#define NGINX      "/usr/sbin/nginx"
#define APACHE     "/usr/sbin/apache2"
#define WRK        "/usr/bin/wrk"
#define AB         "/usr/bin/ab"
#define H2LOAD     "/usr/bin/h2load"
#define GIT        "/usr/bin/git"
#define PYTHON     "/usr/bin/python3"
#define WEBSOCKETS "/usr/lib/python3/dist-packages/websockets/__init__.py"

/* Frees the environment of this process and those it starts from proxies, languages and the user's settings. For
 * main(), before the tests. */
void software_environment(void);

/* Runs a program in the test's folder, which must end with 0 within a minute (more where it is instrumented). Its
 * stdout is in *out, to be freed, where that is not NULL. */
void run_ok(struct world *w, const char *const argv[], struct bytes *out);
#define RUN(w, out, ...) run_ok(w, (const char *const[]){__VA_ARGS__, NULL}, out)
/* The same, and that is exactly what it must print. */
void run_prints(struct world *w, const char *expected, const char *const argv[]);
#define RUN_PRINTS(w, expected, ...) run_prints(w, expected, (const char *const[]){__VA_ARGS__, NULL})

/* http://127.0.0.1:PORT/path, of the daemon; of another port. Valid until the eighth call after it. */
const char *url(const struct world *w, const char *path);
const char *url_at(int port, const char *path);

/* A file of the test's folder with `size` bytes of the pattern. */
void make_file(const struct world *w, const char *name, size_t size);
/* Two files of the test's folder that must be there and be equal; an empty one equals an empty one. */
void expect_same_files(const struct world *w, const char *a, const char *b);

/* Three demo backends, "backend-1" to "backend-3", added to the daemon's backends. */
void three_demos(struct world *w, int ports[3]);

/* Whether a line (or a part of one, in any case of letters) is in the raw head of an origin's request. */
void expect_in_head(struct origin *o, unsigned request, const char *line, bool is_there);

/* nginx with the test's folder as its root, gzip for text, /health, and the test's own directives for the server and in
 * it (or NULL); added to the backends. Returns its port. */
int nginx_backend(struct world *w, const char *directives);
/* nginx as a proxy before the daemon: it keeps connections, streams both ways and passes Upgrade on. Returns its port.
 */
int nginx_in_front(struct world *w);
/* Apache, one process with threads, with the test's folder as its root, mod_cgi (/cgi/NAME runs that file of the
 * folder), mod_status at /status, mod_deflate for text, and the test's own directives (or NULL). It drops root's rights
 * where it has them. Its access log is apache-access.log: method, target, status, and the request's Content-Encoding
 * and Transfer-Encoding. */
int apache_backend(struct world *w, const char *directives);
/* An executable script in the test's folder. */
void make_script(const struct world *w, const char *name, const char *content);

#endif
