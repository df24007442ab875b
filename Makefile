# loadbalancer: `make run` and `make test` install what they need from Debian's packages, build, and do their job.
# Variables: CC=gcc|clang  SAN=address,undefined  BUILD=folder  LTO=0

CC       ?= gcc
ifeq ($(origin CC),default)
CC       := gcc
endif
SAN      ?=
COVERAGE ?=
VERSION  := 0.1.0

# What is installed is optimised as a whole. The objects are fat, and whatever else is linked from them takes their
# machine code: tests of a layer, the simulation, the lint of symbols. Clang 14 knows no fat objects.
lto      := $(if $(filter gcc,$(notdir $(CC))),1,0)
LTO      ?= $(lto)
override LTO := $(if $(SAN)$(COVERAGE),0,$(if $(filter-out 0 no off,$(LTO)),1,0))
ifeq ($(LTO)$(findstring clang,$(CC)),1clang)
$(error LTO=1 needs gcc)
endif

# Each variant of a build has a folder of its own, so that nothing is ever linked from two of them.
variant  := $(if $(filter-out gcc,$(notdir $(CC))),-$(notdir $(CC)))$(if $(SAN),-san)$(if $(COVERAGE),-coverage)$(if $(SAN)$(COVERAGE),,$(if $(filter-out $(lto),$(LTO)),$(if $(filter 1,$(LTO)),-lto,-nolto)))
clean_variant := $(if $(filter-out gcc,$(notdir $(CC))),-$(notdir $(CC)))
ifneq ($(origin BUILD),undefined)
# Whoever names a folder has all in it.
E2E      := $(BUILD)
else
E2E      := $(if $(SAN)$(COVERAGE),build$(clean_variant),build$(variant))
endif
BUILD    ?= build$(variant)
PREFIX   ?= /usr/local

WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wvla -Werror
HARDEN   := -fPIE -fstack-protector-strong -fno-plt
# Whoever has a level of their own (Debian's build flags do) keeps it.
fortify  := $(if $(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
FORTIFY  := $(fortify)
OPT      := -O2 -g$(if $(filter 1,$(LTO)), -flto=auto -ffat-lto-objects)
ifneq ($(SAN),)
OPT      := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all
FORTIFY  :=
LDSAN    := -fsanitize=$(SAN)
endif
ifneq ($(COVERAGE),)
OPT      := -O0 -g --coverage
FORTIFY  :=
LDSAN    := --coverage
endif

# CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are the user's, from the environment or the command line; they come behind ours.
cppflags := -std=c17 -D_GNU_SOURCE -DLB_VERSION='"$(VERSION)"' -Iinclude $(FORTIFY) $(CPPFLAGS)
cflags   := $(OPT) $(WARN) $(HARDEN) -pthread $(CFLAGS)
ldwhole  := -pie -Wl,-z,relro,-z,now -pthread $(LDSAN) $(LDFLAGS)
ldflags  := $(ldwhole)$(if $(filter 1,$(LTO)), -fno-lto)
# http-parser has no pkg-config file in Debian.
ldlibs   := -lcjson -lhttp_parser $(LDLIBS)

# Layers from the bottom up: a static library each, so that a test links its own layer and those below, and nothing above.
LAYERS   := base event http net config limit upstream proxy admin
lib       = $(BUILD)/lib/$(1).a
src_of    = $(wildcard src/$(1)/*.c)
obj_of    = $(patsubst src/%.c,$(BUILD)/obj/%.o,$(call src_of,$(1)))
# The libraries a program of layer $(1) links, from its own down.
reverse   = $(if $(1),$(call reverse,$(wordlist 2,$(words $(1)),$(1))) $(firstword $(1)))
upto      = $(if $(filter $(1),$(firstword $(2))),$(1),$(firstword $(2)) $(call upto,$(1),$(wordlist 2,$(words $(2)),$(2))))
libs_of   = $(foreach l,$(call reverse,$(call upto,$(1),$(LAYERS))),$(call lib,$(l)))

TOP_OBJ   := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(wildcard src/*.c))
DEMO_OBJ  := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(wildcard src/demo/*.c))
UNIT_SRC  := $(wildcard tests/unit/*/test_*.c)
UNIT_BIN  := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
HARNESS_OBJ := $(patsubst tests/e2e/harness/%.c,$(E2E)/obj/e2e/harness/%.o,$(wildcard tests/e2e/harness/*.c))
E2E_BIN   := $(patsubst tests/e2e/%.c,$(BUILD)/e2e/%,$(wildcard tests/e2e/test_*.c))
FUZZ_SRC  := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
BENCH_BIN := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_*.c))

# Short lines; V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

all: $(BUILD)/loadbalancer $(BUILD)/demo-backend

$(BUILD)/loadbalancer: $(TOP_OBJ) $(call libs_of,admin)
	$(call say,LD,$@)
	$(Q)$(CC) $(cflags) $(ldwhole) -o $@ $(TOP_OBJ) $(call libs_of,admin) $(ldlibs)

$(BUILD)/demo-backend: $(DEMO_OBJ) $(call libs_of,net)
	$(call say,LD,$@)
	$(Q)$(CC) $(cflags) $(ldwhole) -o $@ $(DEMO_OBJ) $(call libs_of,net) $(ldlibs)

define layer_rule
$(call lib,$(1)): $(call obj_of,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(call say,AR,$$@)
	$$(Q)ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))

# What was compiled with other flags is compiled anew.
flags    := $(CC) $(cppflags) $(cflags) $(ldwhole) $(ldlibs)
quoted    = '$(subst ','\'',$(1))'
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(call quoted,$(flags)) | cmp -s - $@ || printf '%s\n' $(call quoted,$(flags)) >$@

$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(cppflags) $(cflags) -MMD -MP -c -o $@ $<

# The programs that drive the daemon start it, and others, hundreds of times; with the sanitizers a fork costs them more
# than all else. It is the daemon that is looked at: they are without, and so the same for each way in which it is built,
# made once, in $(E2E). How it was built they read in its $(BUILD)/flags.
e2ecpp   := -std=c17 -D_GNU_SOURCE -DLB_VERSION='"$(VERSION)"' -Iinclude -Itests/e2e $(fortify) $(CPPFLAGS)
e2eflags := -O1 -g $(WARN) $(HARDEN) -pthread $(CFLAGS)
e2elink  := -pie -Wl,-z,relro,-z,now -pthread $(LDFLAGS)

$(E2E)/e2e-flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(call quoted,$(CC) $(e2ecpp) $(e2eflags) $(e2elink)) | cmp -s - $@ || \
	  printf '%s\n' $(call quoted,$(CC) $(e2ecpp) $(e2eflags) $(e2elink)) >$@

$(E2E)/obj/e2e/%.o: tests/e2e/%.c $(E2E)/e2e-flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(e2ecpp) $(e2eflags) -MMD -MP -c -o $@ $<

# A unit test of a layer: tests/unit/LAYER/test_X.c
define unit_rule
$(BUILD)/unit/$(1)/%: tests/unit/$(1)/%.c $(call libs_of,$(1))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$(CC) $(cppflags) $(cflags) $$(ldflags) -MMD -MP -o $$@ $$< $(call libs_of,$(1)) $(ldlibs) -lcmocka -lm
endef
$(foreach l,$(LAYERS),$(eval $(call unit_rule,$(l))))

# Tests that see allocations, and have them fail.
$(BUILD)/unit/base/test_hash: private ldflags += -Wl,--wrap=calloc,--wrap=realloc
$(BUILD)/unit/limit/test_words: private ldflags += -Wl,--wrap=malloc,--wrap=calloc

$(E2E)/e2e/%: tests/e2e/%.c $(HARNESS_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(e2ecpp) $(e2eflags) $(e2elink) -MMD -MP -o $@ $< $(HARNESS_OBJ) -lcjson -lcmocka -lcrypto

# The same file under another name: a program looks for the daemon beside itself.
ifneq ($(E2E),$(BUILD))
$(BUILD)/e2e/%: $(E2E)/e2e/%
	@mkdir -p $(@D)
	@ln -f $< $@
endif

$(BUILD)/bench/%: tests/bench/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) $(cflags) $(ldflags) -MMD -MP -MF $@.d -MT $@ -o $@ $(filter %.c,$^)

# Those that are origin servers.
$(BUILD)/bench/bench_backend $(BUILD)/bench/bench_load: tests/bench/origin.c tests/bench/origin.h

$(BUILD)/bench/bench_limit: tests/bench/bench_limit.c $(call libs_of,limit)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) $(cflags) $(ldwhole) -MMD -MP -o $@ $< $(call libs_of,limit) $(ldlibs)

include tests/tests.mk

-include $(shell find $(sort $(BUILD) $(E2E)/e2e $(E2E)/obj/e2e) -name '*.d' 2>/dev/null)

.SECONDARY:
FORCE:
.PHONY: FORCE all run test lint format fuzz bench install clean
