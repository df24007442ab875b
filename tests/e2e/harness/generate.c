/* The grammar. Each production has its sound forms, and now and then an unsound one. */
#include "harness/generate.h"

#include <stdio.h>
#include <string.h>

struct rng rng_of(uint64_t seed, uint64_t index)
{
    return (struct rng){seed * 0x9e3779b97f4a7c15u ^ index * 0xd1342543de82ef95u};
}

static uint64_t rng_next(struct rng *g)
{
    uint64_t z = g->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

unsigned rng_below(struct rng *g, unsigned n)
{
    return (unsigned)((rng_next(g) >> 32) * n >> 32);
}

bool rng_chance(struct rng *g, unsigned percent)
{
    return rng_below(g, 100) < percent;
}

/* A list of texts, ended by NULL. */
typedef const char *const texts[];

static const char *pick(struct rng *g, const char *const *list)
{
    unsigned n = 0;

    while (list[n])
        n++;
    return list[rng_below(g, n)];
}

static void add(struct bytes *out, const char *text)
{
    bytes_add(out, text, strlen(text));
}

/* One of `sound`, or in `percent` of the cases one of `unsound`. */
static void add_one(struct rng *g, struct bytes *out, const char *const *sound, const char *const *unsound,
                    unsigned percent)
{
    add(out, pick(g, rng_chance(g, percent) ? unsound : sound));
}

/* ---- the request line ---- */

static texts methods = {"GET",     "GET",   "GET",      "POST",  "POST",     "PUT",  "HEAD", "DELETE",
                        "OPTIONS", "PATCH", "PROPFIND", "PURGE", "M-SEARCH", "LINK", NULL};
static texts bad_methods = {"get",
                            "GETT",
                            "FOO",
                            "G(T",
                            "CONNECT",
                            "TRACE",
                            "",
                            "GE\tT",
                            "G\xc9T",
                            "\"GET\"",
                            "PRI",
                            " GET",
                            "A-METHOD-THAT-IS-LONGER-THAN-ANY-OTHER",
                            NULL};
static texts targets = {"/",
                        "/a",
                        "/a/b?c=d&e=%20",
                        "/a//b/../c;d=e",
                        "/?",
                        "/%63at",
                        "/~!$&'()*,=:@",
                        "/x?y=http://z/?a",
                        "/{|}^`\"<>\\",
                        "//double",
                        "http://abs.example/x?y",
                        "HTTP://abs.example:8080/",
                        "http://abs.example",
                        "https://h?q=1",
                        "http://[::1]:80/v6",
                        NULL};
static texts bad_targets = {"a",
                            "*",
                            "/a#b",
                            "/a b",
                            "",
                            "/\x01",
                            "/\xc3\xa9",
                            "/\tx",
                            "http://",
                            "ftp://h/",
                            "http:///x",
                            "http://u@h/",
                            "http://h:x/",
                            "h:443",
                            "http://a,b/",
                            "http:/h/",
                            "http://[::1/",
                            "/\x7f",
                            "?a",
                            "http://h:65536/",
                            NULL};
static texts versions = {"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1",
                         "HTTP/1.1", "HTTP/1.1", "HTTP/1.2", "HTTP/1.9", "HTTP/1.0", "HTTP/1.0", NULL};
static texts bad_versions = {"http/1.1",  "HTTP/1.10", "HTTP/2.0", "HTTP/0.9",  "HTTP/3.0", "HTTP/11",   "HTTP/1.1 ",
                             " HTTP/1.1", "",          "HTTP/1",   "HTTPS/1.1", "HTTP/1,1", "HTTP/01.1", NULL};

static const char *add_request_line(struct rng *g, struct bytes *out)
{
    const char *version = pick(g, rng_chance(g, 2) ? bad_versions : versions);

    for (unsigned lines = rng_chance(g, 3) ? rng_below(g, 7) : 0; lines > 0; lines--)
        add(out, "\r\n");
    if (rng_chance(g, 1)) {
        add(out, "OPTIONS *");
    } else {
        add_one(g, out, methods, bad_methods, 2);
        add(out, rng_chance(g, 1) ? "  " : " ");
        if (rng_chance(g, 1))
            bytes_addf(out, "/%0*u", (int)(1000 + rng_below(g, 60)), 7);
        else
            add_one(g, out, targets, bad_targets, 3);
    }
    bytes_addf(out, " %s\r\n", version);
    return version;
}

/* ---- fields ---- */

static texts hosts = {
    "h",       "example.com", "example.com:8080", "[::1]",     "[2001:db8::7]:443", "127.0.0.1:1", "",
    "a_b.c-d", "h:",          "%41.example",      "1.2.3.999", "[::ffff:1.2.3.4]",  "h:0",         NULL};
static texts bad_hosts = {"a b",   "u@h",   "a,b", "h/x", "h:65536", "h:x",       ":80",   "[::1", "[1]", "[::g]:1",
                          "h\xff", "h:1:2", "h?",  "h#",  "[v1.x]",  "[::1%25e]", "\"h\"", "%4",   NULL};
static texts fields = {"Accept: */*",
                       "accept-language:de",
                       "X-Dup: 1",
                       "X-Dup: 2",
                       "x-dup:\t 3 \t",
                       "X-Empty:",
                       "Cookie: a=b; c=d",
                       "Authorization: Basic Zm9v",
                       "X-Obs: \xc3\xa9\xff",
                       "X-Quoted: \"a, \\\"b\"",
                       "X-Long-Name-With.Marks!#$%&'*+^`|~: 1",
                       "Content-Type: text/plain",
                       "Date: yesterday",
                       "If-None-Match: \"x\"",
                       "Range: bytes=0-1",
                       "Content-Encoding: gzip",
                       "X-A: b:c:d",
                       "Referer: http://h/#f",
                       "Cookie: e=f",
                       "User-Agent: t (x; y)",
                       "5: digits",
                       NULL};
static texts special_fields = {"X_Under: 1",
                               "X-Forwarded-For: 9.9.9.9",
                               "X-Forwarded-Host: evil",
                               "x-forwarded-proto: https",
                               "Forwarded: for=9.9.9.9",
                               "X-Forwarded-Port: 1",
                               "X-Request-ID: sane-id.1",
                               "X-Request-ID: not sane",
                               "Via: 1.1 front",
                               "Via: 1.0 a (c), 1.1 loadbalancer",
                               "X-Client-ID: nobody",
                               "Keep-Alive: timeout=5",
                               "Proxy-Connection: close",
                               "Proxy-Authorization: x",
                               "TE: trailers",
                               "TE: gzip",
                               "Trailer: X-T",
                               "Upgrade: websocket",
                               "Upgrade: h2c",
                               "Expect: 100-continue",
                               "Proxy-Authenticate: Basic",
                               "Content_Length: 9",
                               "Transfer_Encoding: chunked",
                               "X-Content-Length: 7",
                               NULL};
static texts connections = {"keep-alive",
                            "X-Dup",
                            "x-dup, keep-alive",
                            "Upgrade",
                            "TE, Upgrade",
                            "Host",
                            "Content-Length, Transfer-Encoding",
                            "Authorization, Cookie, Via",
                            ",, x-empty ,",
                            "X-Client-ID",
                            "X-Forwarded-For, X-Request-ID, Forwarded",
                            "Content-Type",
                            "a b, X-A",
                            "close",
                            "Date",
                            NULL};
static texts bad_fields = {"X : 1",
                           " folded",
                           "\tfolded",
                           ": nameless",
                           "no colon",
                           "X\x01: 1",
                           "X: a\x01z",
                           "X: a\rb",
                           "X: a\nb",
                           "X(: 1",
                           "X\xe9: 1",
                           "X:\x7f",
                           "Expect: 200-ok",
                           "X-Client-ID: a\r\nX-Client-ID: b",
                           "Host: second",
                           "X\t: 1",
                           "X: a\r\n b",
                           "Content-Length : 3",
                           "Transfer-Encoding : chunked",
                           "Transfer-Encoding\x0b: chunked",
                           "\x0bHost: h",
                           NULL};

static void add_field(struct rng *g, struct bytes *out)
{
    if (rng_chance(g, 30)) {
        add(out, pick(g, special_fields));
    } else if (rng_chance(g, 15)) {
        add(out, rng_chance(g, 50) ? "Connection: " : "connection:");
        add(out, pick(g, connections));
    } else {
        add_one(g, out, fields, bad_fields, 1);
    }
    add(out, "\r\n");
}

static void add_host(struct rng *g, struct bytes *out)
{
    if (rng_chance(g, 2))
        return;
    add(out, rng_chance(g, 70) ? "Host: " : "hOST:\t");
    add_one(g, out, hosts, bad_hosts, 4);
    add(out, rng_chance(g, 10) ? " \t\r\n" : "\r\n");
}

static void add_some_fields(struct rng *g, struct bytes *out)
{
    unsigned n = rng_chance(g, 1) ? 36 + rng_below(g, 8) : rng_below(g, 4);

    for (; n > 0; n--)
        add_field(g, out);
    if (rng_chance(g, 1))
        bytes_addf(out, "X-Large: %0*u\r\n", (int)(3000 + rng_below(g, 1500)), 7);
}

/* ---- content ---- */

static texts contents = {"",
                         "abc",
                         "0123456789",
                         "\r\n",
                         "GET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n",
                         "0\r\n\r\n",
                         "\xff\xfe\x01\x02",
                         "5\r\nhello\r\n",
                         "a=b&c=d",
                         NULL};
static texts bad_lengths = {"+3",
                            "-1",
                            "3,3",
                            "3, 3",
                            "0x3",
                            "3 3",
                            "",
                            "9223372036854775808",
                            "18446744073709551619",
                            "3.0",
                            "3;",
                            "\"3\"",
                            "\xb3",
                            "three",
                            "3\r\nContent-Length: 3",
                            NULL};

static void add_length(struct rng *g, struct bytes *out, const char *content)
{
    size_t n = strlen(content);

    add(out, rng_chance(g, 80) ? "Content-Length: " : "content-length:");
    if (rng_chance(g, 8))
        add(out, pick(g, bad_lengths));
    else if (rng_chance(g, 3))
        bytes_addf(out, "%u", rng_below(g, 80)); /* another one than is there */
    else
        bytes_addf(out, "%0*zu", rng_chance(g, 90) ? 1 : 25, n);
    add(out, rng_chance(g, 95) ? "\r\n" : "\t \r\n");
}

static texts codings = {"chunked", "chunked", "chunked", "Chunked", "CHUNKED", " chunked\t", NULL};
static texts bad_codings = {"gzip, chunked",
                            "chunked, chunked",
                            "xchunked",
                            "chunked;q=1",
                            "identity",
                            "",
                            "gzip",
                            "chunked\r\nTransfer-Encoding: chunked",
                            "chunked\r\nContent-Length: 3",
                            ",chunked",
                            "chunked,",
                            "\"chunked\"",
                            "chunked\x0b",
                            "chunked gzip",
                            NULL};
static texts extensions = {";a", ";a=b", " ; a = b", ";a=\"b;\\\"c\"", ";a;b=c;d=\"\"", "\t;x=\" \t\xff\"", NULL};
static texts bad_extensions = {";",     " ",    ";a=",   ";a=\"b", ";a=b c", "a",   ";a=\"b\"c",
                               ";\x01", ";a b", ";a\rb", ";a\n",   "\t",     ";=b", NULL};
static texts trailers = {"X-T: 1",
                         "x-trailer:\tv ",
                         "Content-Length: 3",
                         "Authorization: x",
                         "X_T: u",
                         "Transfer-Encoding: chunked",
                         "X-Empty:",
                         "Host: t",
                         "X-Forwarded-For: 1.1.1.1",
                         NULL};
static texts bad_trailers = {"X T: 1", " X: 1", "nocolon", ":", "X: \x01", "X: a\nb", "X: a\r\n b", NULL};
static texts bad_sizes = {
    "",   "-1",   "0x3", "g", "+3", " 3", "7fffffffffffffffff", "8000000000000000", "00000000000000003",
    "3.", "\xb3", NULL};

static texts bad_data_ends = {"", "\n", "\r", "\rX", "X\r\n", "\n\r", "\r\n\r\n", " \r\n", "\r\r\n", NULL};

static void add_chunk_line(struct rng *g, struct bytes *out, size_t size)
{
    if (rng_chance(g, 2))
        add(out, pick(g, bad_sizes));
    else if (rng_chance(g, 1))
        bytes_addf(out, "%x", rng_below(g, 200));
    else
        switch (rng_below(g, 6)) {
        case 0: bytes_addf(out, "%zX", size); break;
        case 1: bytes_addf(out, "%04zx", size); break;
        case 2: bytes_addf(out, "%016zx", size); break;
        default: bytes_addf(out, "%zx", size); break;
        }
    if (rng_chance(g, 20))
        add_one(g, out, extensions, bad_extensions, 10);
    if (rng_chance(g, 1))
        bytes_addf(out, ";%0*u", (int)(1000 + rng_below(g, 40)), 7);
    add(out, rng_chance(g, 99) ? "\r\n" : "\n");
}

static void add_chunks(struct rng *g, struct bytes *out)
{
    for (unsigned n = rng_below(g, 4); n > 0; n--) {
        const char *data = pick(g, contents);

        if (!*data)
            continue;
        add_chunk_line(g, out, strlen(data));
        add(out, data);
        add(out, rng_chance(g, 98) ? "\r\n" : pick(g, bad_data_ends));
    }
    add_chunk_line(g, out, 0);
    for (unsigned n = rng_chance(g, 25) ? 1 + rng_below(g, 3) : 0; n > 0; n--) {
        add_one(g, out, trailers, bad_trailers, 4);
        add(out, "\r\n");
    }
    add(out, "\r\n");
}

static void add_request(struct rng *g, struct bytes *out)
{
    const char *version = add_request_line(g, out), *content = pick(g, contents);
    bool old = strcmp(version, "HTTP/1.0") == 0, before = rng_chance(g, 70);
    unsigned kind = rng_below(g, 100);

    if (before)
        add_host(g, out);
    add_some_fields(g, out);
    if (old && rng_chance(g, 80))
        add(out, "Connection: Keep-Alive\r\n");
    if (kind < 30) {
        add_length(g, out, content);
    } else if (kind < (old ? 32 : 60)) {
        add(out, rng_chance(g, 80) ? "Transfer-Encoding: " : "transfer-encoding:");
        add_one(g, out, codings, bad_codings, 8);
        add(out, "\r\n");
    }
    add_some_fields(g, out);
    if (!before)
        add_host(g, out);
    add(out, "\r\n");
    if (kind < 30)
        add(out, content);
    else if (kind < (old ? 32 : 60))
        add_chunks(g, out);
}

void generate_requests(struct rng *g, struct bytes *out)
{
    unsigned n = rng_chance(g, 12) ? 2 + rng_below(g, 2) : 1;

    while (n-- > 0)
        add_request(g, out);
}

void generate(struct rng *g, struct bytes *out)
{
    struct bytes b = {0}, other = {0};
    unsigned mutations = rng_chance(g, 50) ? 1 + rng_below(g, 3) : 0;

    bytes_add(&b, "", 0);
    bytes_add(&other, "", 0);
    generate_requests(g, &b);
    if (mutations > 0)
        generate_requests(g, &other);
    while (mutations-- > 0)
        mutate(g, &b, &other);
    bytes_add(out, b.p, b.n);
    bytes_free(&b);
    bytes_free(&other);
}
