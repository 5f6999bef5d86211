/* check - what must hold inside a worker, after each of its turns. */
#ifndef GATHERD_SIM_CHECK_H
#define GATHERD_SIM_CHECK_H

#include "world.h"

void check_machine(struct machine *machine);
/* Nothing is left to do: so nothing is held. */
void check_idle(struct machine *machine);
/* What is open, for people. */
void print_machine(const struct machine *machine);

#endif
