# Tests, lint, fuzzing, coverage, bench: included by the Makefile.

.PHONY: count hostile compare chaos chaos-short unit e2e fuzz-replay sim sim-mutants check coverage valgrind packages-%

packages-%:
	@.ci/install-packages $(subst +, ,$*)

# `make run` and `make test` install first, then build in a second make, which sees what was installed.
run: packages-build+demo
	@$(MAKE) --no-print-directory all
	@src/demo/run.sh $(BUILD)

test: packages-build+test
	@$(MAKE) --no-print-directory check

# Everything is built first, by as many at a time as there are processors, unless the caller has said how many.
# Then it runs, kind by kind.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
check:
	@$(MAKE) --no-print-directory $(PARALLEL) all $(UNIT_BIN) $(REPLAY_BIN) $(E2E_BIN)
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory fuzz-replay
	@$(MAKE) --no-print-directory e2e

# Those that take long begin first, so that at the end nobody waits for one alone.
E2E_LONG := test_million test_websocket test_clients_gone test_upgrade_binary test_real_large test_forward test_conformance test_real_early \
            test_lifecycle test_hangs test_real_load test_reload_load test_odd_orders test_reload test_pace test_balance test_tokens \
            test_killed test_real_servers test_real_git test_journal
E2E_RUN   = $(addprefix $(BUILD)/e2e/,$(E2E_LONG)) $(filter-out $(addprefix %/,$(E2E_LONG)),$(E2E_BIN))

UNIT_LONG := limit/test_limiter_time limit/test_clients upstream/test_back_h1 event/test_log_writer net/test_io
UNIT_RUN   = $(addprefix $(BUILD)/unit/,$(UNIT_LONG)) $(filter-out $(addprefix %/,$(UNIT_LONG)),$(UNIT_BIN))

# Most of them wait for something most of the time; sanitized ones less so.
TEST_JOBS_HERE = $${TEST_JOBS:-$(if $(SAN),3,4)}

unit: $(UNIT_BIN)
	@TEST_JOBS=$(TEST_JOBS_HERE) tests/run.sh $(UNIT_RUN)

e2e: all $(E2E_BIN)
	@LB_BUILD=$(abspath $(BUILD)) TEST_JOBS=$(TEST_JOBS_HERE) tests/run.sh tests/e2e/readme.sh $(E2E_RUN)

# ---- the harness's own ----

# The reader that judges the proxy is judged itself; the fuzz target of whole connections uses it, too.
REFERENCE_SRC := $(wildcard tests/e2e/harness/reference*.c)
REFERENCE_OBJ := $(patsubst tests/e2e/%.c,$(E2E)/obj/e2e/%.o,$(REFERENCE_SRC))
$(BUILD)/unit/harness/%: tests/unit/harness/%.c $(REFERENCE_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/e2e $(cflags) $(ldflags) -MMD -MP -o $@ $< $(REFERENCE_OBJ) -lcmocka

# ---- a disk that does as it is told ----

# Stands before libc in the daemon, whatever that is built with.
$(E2E)/e2e/disk_shim.so: tests/e2e/disk_shim.c $(E2E)/e2e-flags
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(e2ecpp) $(e2eflags) -fPIC -shared -MMD -MP -MF $@.d -MT $@ -o $@ $<

$(BUILD)/e2e/test_journal: | $(BUILD)/e2e/disk_shim.so

# ---- conformance ----

CONFORMANCE_OBJ := $(patsubst tests/e2e/%.c,$(E2E)/obj/e2e/%.o,$(wildcard tests/e2e/conformance/*.c))

# The suite, and the same cases against any proxy: compare.
$(E2E)/e2e/test_conformance $(E2E)/e2e/compare: $(E2E)/e2e/%: tests/e2e/%.c $(CONFORMANCE_OBJ) $(HARNESS_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(e2ecpp) $(e2eflags) $(e2elink) -MMD -MP -o $@ $< \
	  $(CONFORMANCE_OBJ) $(HARNESS_OBJ) -lcjson -lcmocka -lcrypto

compare: packages-build+test+bench
	@$(MAKE) --no-print-directory all $(BUILD)/e2e/compare
	@tests/e2e/compare.sh $(BUILD)

# ---- chaos ----

# Outages under load, and the promises about them, see docs/chaos.md. CHAOS_ONLY and CHAOS_SKIP: names of scenarios, with commas between.
CHAOS_OBJ := $(patsubst tests/%.c,$(BUILD)/obj/e2e/%.o,$(wildcard tests/chaos/*.c))
CHAOS_ONLY ?=
CHAOS_SKIP ?=

chaos: packages-build+test+bench
	@$(MAKE) --no-print-directory all $(BUILD)/chaos/chaos
	@tests/chaos/chaos.sh $(BUILD) --only "$(CHAOS_ONLY)" --skip "$(CHAOS_SKIP)"

# Ours only, in a minute.
chaos-short: packages-build+test
	@$(MAKE) --no-print-directory all $(BUILD)/chaos/chaos
	@tests/chaos/chaos.sh $(BUILD) --short --only "$(CHAOS_ONLY)" --skip "$(CHAOS_SKIP)"

$(BUILD)/obj/e2e/chaos/%.o: tests/chaos/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(cppflags) -Itests/e2e $(cflags) -MMD -MP -c -o $@ $<

$(BUILD)/chaos/chaos: $(CHAOS_OBJ) $(HARNESS_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cflags) $(ldflags) -o $@ $^ -lcjson -lcmocka -lcrypto -lm

CHAOS_PARTS := $(patsubst %,$(BUILD)/obj/e2e/chaos/%.o,call watch)
$(BUILD)/unit/chaos/%: tests/unit/chaos/%.c $(CHAOS_PARTS) $(HARNESS_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/e2e -Itests/chaos $(cflags) $(ldflags) -MMD -MP -o $@ $< $(CHAOS_PARTS) $(HARNESS_OBJ) -lcjson -lcmocka -lcrypto

# ---- fuzzing ----

FUZZ_SECONDS ?= 30
FUZZ_BUILD   := build-fuzz
FUZZ_BIN     := $(patsubst %,$(BUILD)/fuzz/%,$(FUZZ_NAMES))
REPLAY_BIN   := $(patsubst %,$(BUILD)/fuzz-replay/%,$(FUZZ_NAMES))
# What a target is built from beside its own file.
FUZZ_ALSO_connection := $(wildcard tests/fuzz/connection_*.c) $(REFERENCE_SRC)
$(BUILD)/fuzz/connection $(BUILD)/fuzz-replay/connection: $(FUZZ_ALSO_connection) $(wildcard tests/fuzz/*.h tests/e2e/harness/reference*.h)

fuzz: packages-build+fuzz
	@$(MAKE) --no-print-directory CC=clang BUILD=$(FUZZ_BUILD) SAN=fuzzer-no-link,address,undefined fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ_BIN)
	@tests/fuzz/run.sh $(BUILD)/fuzz $(FUZZ_SECONDS) $(FUZZ_NAMES)

$(BUILD)/fuzz/%: tests/fuzz/fuzz_%.c $(call libs_of,admin)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/e2e $(cflags) -fsanitize=fuzzer $(ldflags) -MMD -MP -o $@ $< $(FUZZ_ALSO_$*) $(call libs_of,admin) $(ldlibs)

# Every seed and every regression once, through the same functions, with any compiler.
fuzz-replay: $(REPLAY_BIN)
	@set -e; for t in $(FUZZ_NAMES); do \
	  $(BUILD)/fuzz-replay/$$t $$(find tests/fuzz/corpus/$$t tests/fuzz/regressions/$$t -type f 2>/dev/null); done

$(BUILD)/fuzz-replay/%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(call libs_of,admin)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/e2e $(cflags) $(ldflags) -MMD -MP -MF $@.d -o $@ $< $(FUZZ_ALSO_$*) tests/fuzz/replay.c $(call libs_of,admin) $(ldlibs)

# ---- the simulation ----

# The daemon's own object files, unchanged, but that they call the simulated kernel (syscalls.map) and that their globals
# lie in sections of their own, so that a new start finds them as new. Without what they hold for LTO: with it nm shows
# the symbols of that, which are others.
SIM_OBJ    := $(patsubst tests/sim/%.c,$(BUILD)/obj/sim/%.o,$(wildcard tests/sim/*.c))
SIM_SEEDS  ?= 1-2000
SIM_RENAME := --remove-section '.gnu.lto_*' --keep-global-symbol=daemon_main --keep-global-symbol=loop_batch --rename-section .data=daemon_data --rename-section .data.rel.local=daemon_data_rel --rename-section .bss=daemon_bss

# First the seeds that have found something before, then a range.
sim: packages-build
	@$(MAKE) --no-print-directory $(BUILD)/sim
	@set -e; for f in tests/sim/seeds/*.seed; do $(BUILD)/sim --seed "$$(sed -n 1p "$$f")" >$(BUILD)/sim.log || { cat $(BUILD)/sim.log; exit 1; }; done
	@$(BUILD)/sim --seeds $(SIM_SEEDS) --all-faults

# Plants each bug of tests/sim/mutants/ in a copy: the simulation must find it.
SIM_MUTANT_SEEDS ?= 20000
sim-mutants: packages-build
	@$(MAKE) --no-print-directory $(BUILD)/sim
	@tests/sim/mutants.sh $(BUILD) $(SIM_MUTANT_SEEDS)

$(BUILD)/obj/sim-daemon.o: $(TOP_OBJ) $(call libs_of,admin) tests/sim/syscalls.map tests/sim/escapes.sh tests/tests.mk
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)ld -r -o $@.all $(TOP_OBJ) --whole-archive $(call libs_of,admin)
	$(Q)objcopy --redefine-syms=tests/sim/syscalls.map $(SIM_RENAME) $@.all $@.new
	$(Q)tests/sim/escapes.sh $@.new
	$(Q)mv $@.new $@

$(BUILD)/obj/sim/%.o: tests/sim/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(cppflags) -Itests/sim $(cflags) -U_FORTIFY_SOURCE -MMD -MP -c -o $@ $<

# The parts of it that stand alone have unit tests.
SIM_PARTS := $(patsubst %,$(BUILD)/obj/sim/%.o,bytes disk engine message)
$(BUILD)/unit/sim/%: tests/unit/sim/%.c $(SIM_PARTS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/sim $(cflags) -U_FORTIFY_SOURCE $(ldflags) -MMD -MP -o $@ $< $(SIM_PARTS) -lcmocka

# The simulated kernel as a whole; the test takes the daemon's place in it.
SIM_KERNEL := $(SIM_PARTS) $(patsubst %,$(BUILD)/obj/sim/%.o,ends events files heap libc maps names net pipes process sockets threads vanish)
$(BUILD)/unit/sim/test_sockets: tests/unit/sim/test_sockets.c $(SIM_KERNEL)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(cppflags) -Itests/sim $(cflags) -U_FORTIFY_SOURCE $(ldflags) -MMD -MP -o $@ $< $(SIM_KERNEL) -lcmocka $(ldlibs)

$(BUILD)/sim: $(SIM_OBJ) $(BUILD)/obj/sim-daemon.o
	$(call say,LD,$@)
	$(Q)$(CC) $(cflags) $(ldflags) -o $@ $^ $(ldlibs)

# ---- lint ----

SOURCES := $(wildcard src/*.c src/*/*.c src/*/*.h include/*.h include/*/*.h tests/unit/*/*.c tests/e2e/*.[ch] \
             tests/e2e/harness/*.[ch] tests/e2e/conformance/*.[ch] tests/fuzz/*.[ch] tests/bench/*.[ch] tests/sim/*.[ch] tests/chaos/*.[ch])

# The longest begins first.
LINTS := lint-tidy lint-layers lint-cppcheck lint-shell lint-format
.PHONY: $(LINTS)
lint: packages-build+lint+test
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory $(PARALLEL) $(LINTS)

lint-layers:
	@tests/lint/layers.sh $(BUILD)

lint-format:
	@clang-format --dry-run --Werror $(SOURCES)

lint-shell:
	@shellcheck -x -P SCRIPTDIR .ci/run .ci/install-packages $$(find src tests -name '*.sh')

lint-cppcheck:
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -DLB_VERSION='"x"' -D_GNU_SOURCE -Iinclude src

lint-tidy:
	@tests/lint/tidy.sh src/*.c src/*/*.c

format:
	clang-format -i $(SOURCES)

# ---- coverage, valgrind, bench ----

coverage: packages-build+test+coverage
	@$(MAKE) --no-print-directory COVERAGE=1 check
	@tests/lint/coverage.sh build-coverage 85

valgrind: packages-build+test+valgrind
	@$(MAKE) --no-print-directory all $(E2E_BIN)
	@LB_BUILD=$(abspath $(BUILD)) LB_VALGRIND=1 tests/run.sh $(E2E_BIN)

bench: packages-build+bench
	@$(MAKE) --no-print-directory all $(BENCH_BIN)
	@folder=$$(mktemp -d) && $(BUILD)/bench/bench_limit "$$folder"; status=$$?; rm -rf "$$folder"; exit $$status
	@tests/bench/bench.sh $(BUILD) docs

# How long others wait beside hostile peers, see docs/hostile.md, which is written by it.
hostile: packages-build+bench
	@$(MAKE) --no-print-directory all $(BENCH_BIN)
	@tests/bench/hostile.sh $(BUILD) docs/hostile.md

# A request's instructions, against those in tests/bench/instructions.
count: packages-build+bench
	@$(MAKE) --no-print-directory all $(BENCH_BIN)
	@tests/bench/count.sh $(BUILD)

install: all
	install -D -m 755 $(BUILD)/loadbalancer $(DESTDIR)$(PREFIX)/bin/loadbalancer
	install -D -m 755 $(BUILD)/demo-backend $(DESTDIR)$(PREFIX)/bin/demo-backend

clean:
	rm -rf build build-*
