/* Intrusive doubly linked circular list. An element embeds a `struct list`; the head is one too.
 * Nothing here allocates. An element is in at most one list by one link at a time. */
#ifndef LB_BASE_LIST_H
#define LB_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

/* The struct of `type` that embeds the member at `ptr`. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Makes `l` an empty head, or an element that is in no list. */
static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

/* True for a head without elements, and for an element that is in no list. */
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_between(struct list *e, struct list *prev, struct list *next)
{
    e->prev = prev;
    e->next = next;
    prev->next = e;
    next->prev = e;
}

static inline void list_push_back(struct list *head, struct list *e)
{
    list_insert_between(e, head->prev, head);
}

static inline void list_push_front(struct list *head, struct list *e)
{
    list_insert_between(e, head, head->next);
}

/* Takes `e` out of its list and leaves it initialised; harmless when it is in none. */
static inline void list_remove(struct list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}

/* Takes out and returns the first element, or NULL when the list is empty. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *e = head->next;
    if (e == head)
        return NULL;
    list_remove(e);
    return e;
}

/* Moves all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

/* Walks the list; the body may remove the element `it` itself, and no other. */
#define LIST_EACH(it, head)                                                                                            \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

#endif
