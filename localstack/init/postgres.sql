-- The owner of the schema, as the master user of a managed server: the migrations make the others.
CREATE ROLE telemetry_owner LOGIN CREATEROLE;
CREATE DATABASE telemetry OWNER telemetry_owner;
