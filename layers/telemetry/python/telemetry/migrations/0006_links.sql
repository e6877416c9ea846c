REVOKE EXECUTE ON FUNCTION links_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION links_of TO telemetry_read;
GRANT SELECT ON links, link_periods TO telemetry_read;
