-- The aircraft that each airline flew in 2013, and how old they were then. Many aircraft are in no register (some airlines
-- report their own numbers instead): they are counted, and have no age.
WITH fleet AS (
    SELECT carrier, tailnum, count(*) AS flights
    FROM silver.flights
    WHERE tailnum IS NOT NULL AND NOT cancelled
    GROUP BY carrier, tailnum
)

SELECT
    f.carrier,
    a.name AS airline,
    count(*) AS aircraft,
    count(p.year) AS aircraft_of_known_age,
    round(avg(2013 - p.year), 1) AS mean_age,
    max(2013 - p.year) AS oldest,
    round(sum(f.flights * (2013 - p.year)) / sum(f.flights) FILTER (WHERE p.year IS NOT NULL), 1) AS mean_age_per_flight
FROM fleet AS f
INNER JOIN silver.airlines AS a ON f.carrier = a.carrier
LEFT JOIN silver.planes AS p ON f.tailnum = p.tailnum
GROUP BY f.carrier, a.name
