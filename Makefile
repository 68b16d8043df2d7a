# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Ansible ignores an ansible.cfg in a world-writable directory unless it is named explicitly.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONUNBUFFERED := 1
# TESTS=all also runs the long tests.
export TESTS

LAB_PACKAGES := podman runc netavark aardvark-dns nftables iptables mmdebstrap openssh-client
ifneq ($(shell id -u),0)
LAB_PACKAGES += uidmap passt slirp4netns fuse-overlayfs dbus-user-session
endif

VM_PACKAGES := qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client
ifneq ($(shell id -u),0)
VM_PACKAGES += fakeroot uidmap
endif

# tools/doctor runs these two and prints their report only
PLAYBOOKS := $(subst _,-,$(filter-out doctor status,$(notdir $(basename $(wildcard playbooks/*.yml)))))

# Refuse variables that the target does not have. Checked at the top level only, because make passes variables on to sub-makes.
ifeq ($(MAKELEVEL),0)
variables = LAB TESTS HOSTILE_TIMES VM_RELEASES VENV VENV_PYTHON $(if $(filter $(PLAYBOOKS),$(1)),inventory limit tags check args) \
    $(if $(filter doctor,$(1)),inventory limit json all args) $(if $(filter status,$(1)),inventory limit json args) $(if $(filter lab,$(1)),sites) $(if $(filter image,$(1)),base tag platforms) $(if $(filter release,$(1)),dry)
known := $(foreach goal,$(or $(MAKECMDGOALS),help),$(call variables,$(goal)))
given := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
unknown := $(filter-out $(known),$(given))
ifneq ($(unknown),)
$(error $(shell tools/unknown-variable 'make $(MAKECMDGOALS)' '$(firstword $(unknown))' $(known)))
endif
endif

inventory ?= $(if $(wildcard inventories/homelab),inventories/homelab,inventories/lab)
# What a user gives reaches the shell as variables, so that no character in a path means anything to make or to the shell.
GIVEN := inventory limit tags args
$(foreach name,$(GIVEN),$(if $(findstring command line,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
export inventory limit tags
# of image
export base tag platforms

# checks before a playbook runs: the inventory exists, and the lab is up if the playbook needs it
with_inventory = case "$$inventory" in *,*) ;; *) [ -e "$$inventory" ] || { echo "inventory=$$inventory: no such file or folder" >&2; exit 2; } ;; esac
is_lab = { [ "$$inventory" -ef inventories/lab ] || [ "$$inventory" -ef inventories/lab/hosts.py ]; }
with_lab = if $(is_lab); then $(MAKE) --no-print-directory --silent lab-ready >&2; fi
lab_note = $$(if $(is_lab); then echo ' (the built-in lab; for your own hosts, copy inventories/example to inventories/homelab)'; fi)
with_hosts = --inventory "$$inventory" $${limit:+--limit "$$limit"}

.PHONY: help $(PLAYBOOKS) doctor status demo demo-container image lab lab-ready lab-down test lint sanity units units-all oracle molecule test-arm64 test-vm test-all docs site build importer release lock

help: ## show this list
	@echo 'make TARGET [VARIABLE=VALUE ...]'
	@echo
	@echo 'Targets:'
	@for playbook in pve $(filter-out pve,$(PLAYBOOKS)); do printf '  %-14s %s\n' $$playbook \
	    "$$(sed -n '2{s/^# *\(.\)/\L\1/; s/\. \(.\)/; \L\1/g; s/\.$$//p}' playbooks/$${playbook//-/_}.yml)"; done
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'
	@echo
	@echo 'Variables of pve, plan, rotate, drill, drill-live, doctor and status:'
	@echo '  tags=hotplug       pve: deploy only the USB hotplug agent (tags=ups: everything, as without tags)'
	@echo '  limit=HOST,...     run only on these hosts'
	@echo '  inventory=PATH     use this inventory (default: inventories/homelab if it exists, else the built-in lab)'
	@echo '  check=1            show what would change, and change nothing'
	@echo '  json=1             doctor, status: print JSON'
	@echo '  all=1              doctor: a row for each check, also if it is ok'
	@echo "  args='...'         pass other options to ansible-playbook, such as args=-vvv"

# Playbooks

$(PLAYBOOKS): %: $(VENV)/run
	@$(with_inventory)
	@echo "inventory: $$inventory$(lab_note)" >&2
	@$(with_lab)
	@ansible-playbook playbooks/$(subst -,_,$*).yml $(with_hosts) $${tags:+--tags "$$tags"} $(if $(filter-out 0 no false,$(check)),--check --diff) $(args)

doctor: $(VENV)/run ## check every host, show what is wrong and how to fix it
	@$(with_inventory)
	@$(with_lab)
	@tools/doctor doctor $(if $(filter-out 0 no false,$(json)),--json) $(if $(filter-out 0 no false,$(all)),--all) $(with_hosts) $(args)

status: $(VENV)/run ## show each UPS, the logins and the last events on one screen
	@$(with_inventory)
	@$(with_lab)
	@tools/doctor status $(if $(filter-out 0 no false,$(json)),--json) $(with_hosts) $(args)

# The lab

demo: $(VENV)/run ## show a power cut in the built-in lab, from deployment to the last host going down
	@tools/packages $(LAB_PACKAGES)
	@tools/demo

image: ## build the container's image with podman; base=packages makes its base from packages, platforms=linux/arm64 builds for another machine
	@tools/packages $(if $(filter packages,$(base)),podman runc mmdebstrap,podman runc)
	@tools/image

demo-container: $(VENV)/run ## show the container with UPSes that are plugged in, pulled out and swapped, and measure the seconds
	@tools/packages $(LAB_PACKAGES)
	@tools/demo-container

lab: ## start the lab; sites='pve8 rack' starts these sites instead of pve8 and pve9
	@tools/packages $(LAB_PACKAGES)
	@lab/lab up $(sites)
	@lab/lab status

# used by playbooks; prints nothing if the lab is up
lab-ready:
	@lab/lab runs || $(MAKE) --no-print-directory lab

lab-down: ## remove the lab
	@lab/lab down

# Tests

test: lint ## run lint, sanity, units-all, oracle and molecule, as CI does
	@echo 'running unit tests, oracle and sanity in parallel; the output of each appears when it ends'
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target sanity oracle units-all
	@$(MAKE) --no-print-directory molecule

lint: $(VENV)/dev ## run ansible-lint, yamllint, ruff, mypy and galaxy-importer, and lint the changelog
	yamllint --strict .
	ruff check
	ruff format --check
	mypy plugins lab tests/oracle
	ansible-lint
	antsibull-changelog lint
	cd .collections/ansible_collections/homelab/nut && antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .
	tools/importer

sanity: $(VENV)/dev ## run all tests of ansible-test sanity
	tools/sanity

units: $(VENV)/dev ## run the unit tests except the slow ones (minutes; do this after each change)
	pytest -n 3 --dist worksteal -m 'not slow'

units-all: $(VENV)/dev $(VENV)/oldest/run ## run all unit tests
	pytest -n 3 --dist worksteal

oracle: $(VENV)/dev ## test the library against the real NUT of Debian 12 and 13 (TESTS=all: and 14), in containers
	@tools/packages $(LAB_PACKAGES)
	pytest tests/oracle

molecule: $(VENV)/dev ## run the molecule scenarios in the lab: deployment, faults, upgrade, drills, power cuts, doctor
	@tools/packages $(LAB_PACKAGES)
	tools/molecule

test-all: ## run every test, including the long ones and test-vm (hours; do this before a release)
	@$(MAKE) --no-print-directory test TESTS=all
	@$(MAKE) --no-print-directory test-vm

test-arm64: $(VENV)/dev ## test Debian's NUT and the library for arm64, as on a Raspberry Pi, in an emulator (some minutes)
	@tools/packages mmdebstrap qemu-user-static
	pytest tests/arm64

test-vm: $(VENV)/dev ## test USB hotplug in a virtual machine with a real kernel, udev and power loss (half an hour)
	@tools/packages $(LAB_PACKAGES) $(VM_PACKAGES)
	molecule test --scenario-name vm

docs: $(VENV)/run ## generate directives.md, timeline.svg and the tables of variables in the roles' READMEs
	@python3 tools/directives.py
	@python3 tools/timeline.py
	@python3 tools/variables.py

site: $(VENV)/site/run ## build the documentation site in .cache/site/html, and check its links
	@tools/site/build

build: $(VENV)/run ## build the collection for ansible-galaxy
	ansible-galaxy collection build --force

importer: $(VENV)/dev ## import the collection with galaxy-importer, as Galaxy does
	tools/importer

release: $(VENV)/dev ## rehearse the release of the version in galaxy.yml; dry=0 makes its changelog, commit, tag and tarball
	@tools/release $(if $(filter 0 no false,$(dry)),--really)

# The virtual environment: `run` has what playbooks need, `dev` adds the tools for the tests. `oldest` and `site` are
# of their own: the oldest ansible-core that the collection supports, and what builds the documentation site. VENV_PYTHON=3.12 makes them with that version.

$(VENV)/run: requirements.txt tools/venv
	@tools/venv $(VENV) requirements.txt $(VENV_PYTHON)
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	@tools/venv $(VENV) requirements-dev.txt $(VENV_PYTHON)
	@touch $@

$(VENV)/oldest/run: requirements-oldest.txt $(VENV)/run
	@tools/venv $(VENV)/oldest requirements-oldest.txt 3.13 3.12 3.11
	@touch $@

$(VENV)/site/run: requirements-site.txt $(VENV)/run
	@tools/venv $(VENV)/site requirements-site.txt $(VENV_PYTHON)
	@touch $@

lock: $(VENV)/dev ## pin new versions in requirements*.txt, with hashes, from requirements*.in
	@for name in $(basename $(wildcard requirements*.in)); do uv pip compile --quiet --no-config --universal --upgrade --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links $$name.in --output-file $$name.txt; done
