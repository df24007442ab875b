/* A client as JSON, both ways: one table of the fields serves the API's bodies, clients.json and its journal. */
#include "limit/client_json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* Whole numbers below this are exact, and have up to 15 digits. */
#define WHOLE_MAX 1e15

#define MILLIONTHS 1e6

/* Smaller fractions are written with an exponent. */
#define SHORT_MIN 1e-4

double client_tokens_shown(double tokens)
{
    double scaled = tokens * MILLIONTHS;
    if (!(scaled > -WHOLE_MAX * 8 && scaled < WHOLE_MAX * 8))
        return tokens;
    int64_t whole = (int64_t)scaled;
    return (double)((double)whole > scaled ? whole - 1 : whole) / MILLIONTHS;
}

void client_view_of(const struct client_table *t, const struct client *c, uint64_t now, struct client_view *out)
{
    struct str id = client_id(c);
    memcpy(out->id, id.p, id.n);
    out->id[id.n] = '\0';
    out->set = (struct client_settings){c->policy.capacity, c->policy.rate, (enum client_mode)c->mode};
    out->tokens = client_tokens_shown(bucket_tokens(&c->policy, *client_word(t, c), now));
    out->allowed = c->allowed;
    out->limited = client_limited(c);
    out->place = c->seq;
}

static const char *const mode_names[CLIENT_MODES] = {"enforce", "shadow", "off"};

const char *client_mode_name(enum client_mode mode)
{
    return mode_names[mode];
}

/* Writes `n` before digits[at], in at least that many digits; where they begin. */
static size_t put_digits(char *digits, size_t at, uint64_t n, unsigned least)
{
    for (unsigned i = 0; i < least || n > 0; i++, n /= 10)
        digits[--at] = (char)('0' + n % 10);
    return at;
}

/* Is v so many millionths, to its last bit? Its decimal form then has at most 15 digits, and reads back the same. */
static bool in_millionths(double v, uint64_t *n)
{
    if (!(v >= SHORT_MIN && v < WHOLE_MAX / MILLIONTHS))
        return false;
    *n = (uint64_t)(v * MILLIONTHS + 0.5);
    return (double)*n / MILLIONTHS == v;
}

bool client_number_json(struct buf *out, double v)
{
    char digits[32];
    size_t end = sizeof digits;
    uint64_t n;
    if (v >= 0 && v < WHOLE_MAX && (double)(uint64_t)v == v) {
        size_t at = put_digits(digits, end, (uint64_t)v, 1);
        return buf_append(out, digits + at, end - at);
    }
    if (!in_millionths(v, &n))
        return json_append_number(out, v);
    size_t at = put_digits(digits, end, n % (uint64_t)MILLIONTHS, 6);
    while (digits[end - 1] == '0')
        end--;
    digits[--at] = '.';
    at = put_digits(digits, at, n / (uint64_t)MILLIONTHS, 1);
    return buf_append(out, digits + at, end - at);
}

static bool common_json(struct buf *out, const struct client_view *v)
{
    return buf_append_str(out, STR("{\"client_id\":")) && json_append_string(out, str_of(v->id)) &&
           buf_append_str(out, STR(",\"capacity\":")) && client_number_json(out, v->set.capacity) &&
           buf_append_str(out, STR(",\"rate_per_sec\":")) && client_number_json(out, v->set.rate) &&
           buf_append_str(out, STR(",\"tokens\":")) && client_number_json(out, v->tokens);
}

static bool mode_json(struct buf *out, enum client_mode mode)
{
    return buf_append_str(out, STR(",\"mode\":\"")) && buf_append_str(out, str_of(mode_names[mode])) &&
           buf_append_str(out, STR("\""));
}

bool client_view_json(struct buf *out, const struct client_view *v)
{
    return common_json(out, v) && mode_json(out, v->set.mode) &&
           buf_printf(out, ",\"allowed\":%" PRIu64 ",\"limited\":%" PRIu64 "}", v->allowed, v->limited);
}

bool client_stored_json(struct buf *out, const struct client_view *v)
{
    return common_json(out, v) && (v->set.mode == CLIENT_ENFORCE || mode_json(out, v->set.mode)) &&
           (v->place == 0 || buf_printf(out, ",\"place\":%" PRIu64, v->place)) && buf_append_str(out, STR("}"));
}

/* ---- reading ---- */

static bool any_number(double v)
{
    return isfinite(v);
}

static bool is_place(double v)
{
    return v >= 1 && v <= (double)CLIENT_PLACE_MAX && v == (double)(uint64_t)v;
}

static bool take_id(const char *text, struct client_view *v)
{
    return client_id_canonical(str_of(text), v->id);
}

static bool take_mode(const char *text, struct client_view *v)
{
    for (unsigned i = 0; i < CLIENT_MODES; i++)
        if (strcmp(text, mode_names[i]) == 0) {
            v->set.mode = (enum client_mode)i;
            return true;
        }
    return false;
}

static const struct {
    const char *key;
    enum client_field bit;
    bool (*is_valid)(double v); /* of a number; NULL: a string */
    const char *must_be;
    bool (*take)(const char *text, struct client_view *v); /* of a string: false when it is not valid */
} fields[] = {
    {"client_id", CLIENT_ID, NULL, "a string of 1 to 128 visible ASCII characters", take_id},
    {"capacity", CLIENT_CAPACITY, bucket_capacity_is_valid, "a number from 1 to 1e9", NULL},
    {"rate_per_sec", CLIENT_RATE, bucket_rate_is_valid, "a number above 0 and at most 1e9", NULL},
    {"tokens", CLIENT_TOKENS, any_number, "a finite number", NULL},
    {"mode", CLIENT_MODE, NULL, "\"enforce\", \"shadow\" or \"off\"", take_mode},
    {"place", CLIENT_PLACE, is_place, "a whole number above 0", NULL},
};

#define FIELDS (sizeof fields / sizeof fields[0])

static void set_number(double number, enum client_field bit, struct client_view *v)
{
    if (bit == CLIENT_PLACE)
        v->place = (uint64_t)number;
    else
        *(bit == CLIENT_CAPACITY ? &v->set.capacity : bit == CLIENT_RATE ? &v->set.rate : &v->tokens) = number;
}

static bool fault_at(struct client_fault *fault, const struct json *at, size_t field, const char *found)
{
    fault->at = at;
    snprintf(fault->what, sizeof fault->what, "%s %s; it must be %s", fields[field].key, found, fields[field].must_be);
    return false;
}

/* What a message says of a text from outside is short, and printable. */
#define SHOWN 31
static void printable(const char *from, char to[SHOWN + 4])
{
    size_t n = 0;
    for (; n < SHOWN && from[n]; n++)
        to[n] = (char)(from[n] >= 0x20 && from[n] < 0x7f ? from[n] : '?');
    snprintf(to + n, 4, "%s", from[n] ? "..." : "");
}

static bool read_string(const struct json *m, size_t field, struct client_view *v, struct client_fault *fault)
{
    if (fields[field].take(json_string(m), v))
        return true;
    char text[SHOWN + 4], found[SHOWN + 16];
    printable(json_string(m), text);
    snprintf(found, sizeof found, "is \"%s\"", text);
    return fault_at(fault, m, field, found);
}

static bool read_number(const struct json *m, size_t field, struct client_view *v, struct client_fault *fault)
{
    double number = json_number(m);
    if (fields[field].is_valid(number)) {
        set_number(number, fields[field].bit, v);
        return true;
    }
    char found[48] = "is out of range";
    struct buf text = BUF_INIT;
    if (json_append_number(&text, number)) /* "0.99", as it was written, not its nearest double */
        snprintf(found, sizeof found, "is %.*s", STR_ARG(buf_str(&text)));
    buf_fini(&text);
    return fault_at(fault, m, field, found);
}

static bool read_member(const struct json *m, size_t field, struct client_view *v, struct client_fault *fault)
{
    bool is_string = !fields[field].is_valid;
    if (json_type(m) != (is_string ? JSON_STRING : JSON_NUMBER)) {
        char found[48];
        snprintf(found, sizeof found, "is %s", json_type_name(json_type(m)));
        return fault_at(fault, m, field, found);
    }
    return is_string ? read_string(m, field, v, fault) : read_number(m, field, v, fault);
}

static size_t field_named(const char *key, unsigned allowed)
{
    size_t i = 0;
    while (i < FIELDS && !((fields[i].bit & allowed) && strcmp(fields[i].key, key) == 0))
        i++;
    return i;
}

static bool unknown_field(const struct json *m, struct client_fault *fault)
{
    char key[SHOWN + 4];
    printable(json_key(m), key);
    fault->at = m;
    snprintf(fault->what, sizeof fault->what, "the field \"%s\" is not known here", key);
    return false;
}

bool client_fields_read(const struct json *object, unsigned needed, unsigned allowed, struct client_fields *out,
                        struct client_fault *fault)
{
    *out = (struct client_fields){0};
    if (json_type(object) != JSON_OBJECT) {
        fault->at = object;
        snprintf(fault->what, sizeof fault->what, "a client must be an object, not %s",
                 json_type_name(json_type(object)));
        return false;
    }
    for (const struct json *m = json_first(object); m; m = json_next(m)) {
        size_t field = field_named(json_key(m), needed | allowed);
        if (field == FIELDS)
            return unknown_field(m, fault);
        if (!read_member(m, field, &out->v, fault))
            return false;
        out->given |= fields[field].bit;
    }
    for (size_t i = 0; i < FIELDS; i++)
        if (needed & ~out->given & fields[i].bit)
            return fault_at(fault, object, i, "is missing");
    return true;
}

/* ---- reading what the store has written ---- */

/* Any number of so many digits is whole in a double, and so is the power of ten that it is divided by: their quotient
 * is the nearest double, as strtod() would find it. */
#define DIGITS_MAX 15u

static const double powers_of_ten[DIGITS_MAX + 1] = {1,   1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                     1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* Takes what stands at the front of the rest, if it does. */
static bool take(struct str *rest, struct str what)
{
    if (!str_starts_with(*rest, what))
        return false;
    *rest = str_make(rest->p + what.n, rest->n - what.n);
    return true;
}

/* Takes digits, one more than there may be at most; how many. */
static size_t take_digits(struct str *rest, uint64_t *n)
{
    size_t i = 0;
    for (; i < rest->n && i <= DIGITS_MAX && rest->p[i] >= '0' && rest->p[i] <= '9'; i++)
        *n = *n * 10 + (uint64_t)(rest->p[i] - '0');
    *rest = str_make(rest->p + i, rest->n - i);
    return i;
}

static bool take_number(struct str *rest, double *v)
{
    uint64_t n = 0;
    bool zero = str_starts_with(*rest, STR("0"));
    size_t whole = take_digits(rest, &n), decimals = 0;
    if (whole == 0 || (zero && whole > 1))
        return false;
    if (take(rest, STR(".")) && (decimals = take_digits(rest, &n)) == 0)
        return false;
    if (whole + decimals > DIGITS_MAX)
        return false;
    *v = (double)n / powers_of_ten[decimals];
    return true;
}

/* An id that needs no escape, up to its closing quote. */
static bool take_plain_id(struct str *rest, char out[CLIENT_ID_MAX + 1])
{
    size_t n = str_find(str_make(rest->p, rest->n > CLIENT_ID_MAX + 1 ? CLIENT_ID_MAX + 1 : rest->n), '"');
    struct str id = str_make(rest->p, n);
    if (n > CLIENT_ID_MAX || str_find(id, '\\') < n || !client_id_canonical(id, out))
        return false;
    *rest = str_make(rest->p + n, rest->n - n);
    return true;
}

static bool take_stored_mode(struct str *rest, struct client_fields *out)
{
    if (!take(rest, STR(",\"mode\":\"")))
        return true;
    unsigned i = 0;
    while (i < CLIENT_MODES && !take(rest, str_of(mode_names[i])))
        i++;
    out->v.set.mode = (enum client_mode)i;
    out->given |= CLIENT_MODE;
    return i < CLIENT_MODES && take(rest, STR("\""));
}

static bool take_stored_place(struct str *rest, struct client_fields *out)
{
    double place;
    if (!take(rest, STR(",\"place\":")))
        return true;
    if (!take_number(rest, &place) || !is_place(place))
        return false;
    out->v.place = (uint64_t)place;
    out->given |= CLIENT_PLACE;
    return true;
}

size_t client_stored_read(struct str text, struct client_fields *out)
{
    struct str rest = text;
    struct client_settings *set = &out->v.set;
    *out = (struct client_fields){.given = CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE | CLIENT_TOKENS};
    bool ok = take(&rest, STR("{\"client_id\":\"")) && take_plain_id(&rest, out->v.id) &&
              take(&rest, STR("\",\"capacity\":")) && take_number(&rest, &set->capacity) &&
              take(&rest, STR(",\"rate_per_sec\":")) && take_number(&rest, &set->rate) &&
              take(&rest, STR(",\"tokens\":")) && take_number(&rest, &out->v.tokens) && take_stored_mode(&rest, out) &&
              take_stored_place(&rest, out) && take(&rest, STR("}"));
    return ok && bucket_capacity_is_valid(set->capacity) && bucket_rate_is_valid(set->rate) ? text.n - rest.n : 0;
}
