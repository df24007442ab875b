/* How long a body is, decided from the head alone.
 * Every field of a head is checked before its body is said to be none. */
#include "http/framing.h"

/* A list of transfer codings that is not "chunked" alone. Where chunked is not the last, or not the only one of its
 * kind, the end of the body cannot be found (RFC 9112 section 6.3): that is a fault of the client's. */
static enum err judge_codings(struct str list)
{
    struct str element, last = STR("");
    unsigned chunked = 0;

    while (str_next_element(&list, &element)) {
        last = element;
        chunked += str_eq_nocase(element, STR("chunked"));
    }
    if (chunked == 1 && str_eq_nocase(last, STR("chunked")))
        return ERR_CODING_NOT_IMPLEMENTED;
    return ERR_BAD_TRANSFER_ENCODING;
}

static enum err read_transfer_encoding(const struct headers *h, unsigned minor, struct framing *out)
{
    unsigned count;
    const struct field *f = headers_find(h, FIELD_TRANSFER_ENCODING, &count);

    if (count > 1 || minor == 0 || headers_have(h, FIELD_CONTENT_LENGTH))
        return ERR_BAD_TRANSFER_ENCODING;
    if (!str_eq_nocase(f->value, STR("chunked")))
        return judge_codings(f->value);
    *out = (struct framing){FRAMING_CHUNKED, 0};
    return ERR_OK;
}

static enum err read_content_length(const struct headers *h, struct framing *out)
{
    unsigned count;
    const struct field *f = headers_find(h, FIELD_CONTENT_LENGTH, &count);
    uint64_t length;

    if (count > 1 || !str_parse_u64(f->value, &length) || length > INT64_MAX)
        return ERR_BAD_CONTENT_LENGTH;
    *out = (struct framing){FRAMING_LENGTH, length};
    return ERR_OK;
}

/* What the fields say; `otherwise` when they say nothing. */
static enum err read_fields(const struct headers *h, unsigned minor, enum framing_kind otherwise, struct framing *out)
{
    *out = (struct framing){otherwise, 0};
    if (headers_have(h, FIELD_TRANSFER_ENCODING))
        return read_transfer_encoding(h, minor, out);
    if (headers_have(h, FIELD_CONTENT_LENGTH))
        return read_content_length(h, out);
    return ERR_OK;
}

enum err framing_of_request(const struct headers *h, unsigned minor, struct framing *out)
{
    return read_fields(h, minor, FRAMING_NONE, out);
}

enum err framing_of_response(const struct headers *h, unsigned minor, unsigned status, bool to_head,
                             struct framing *out)
{
    if (read_fields(h, minor, FRAMING_CLOSE, out) != ERR_OK)
        return ERR_BAD_RESPONSE;
    if (to_head || status < 200 || status == 204 || status == 304)
        *out = (struct framing){FRAMING_NONE, 0};
    return ERR_OK;
}
