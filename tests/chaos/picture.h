/* The live picture: one line on a terminal, drawn over and over; else a line now and then. */
#ifndef CHAOS_PICTURE_H
#define CHAOS_PICTURE_H

#include "stage.h"

void picture_draw(struct stage *s);
/* Makes place for other lines. */
void picture_clear(void);

#endif
