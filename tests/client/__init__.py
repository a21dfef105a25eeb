"""Tests of the client, against a fake coordinator with real TLS and enrolment."""
