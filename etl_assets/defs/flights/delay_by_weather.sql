-- How flights left in which weather, by the observation at their airport in the hour of their schedule.
-- Each hour counts under the first condition that it meets; hours without an observation are a row of their own.
WITH observed AS (
    SELECT
        f.cancelled,
        f.dep_delay,
        CASE
            WHEN w.origin IS NULL THEN 'no observation'
            WHEN w.visib < 3 THEN 'visibility below 3 miles'
            WHEN w.precip >= 0.1 THEN 'heavy rain or snow'
            WHEN w.precip > 0 THEN 'light rain or snow'
            WHEN w.wind_speed >= 20 THEN 'wind of 20 mph or more'
            ELSE 'fair'
        END AS weather
    FROM silver.flights AS f
    LEFT JOIN silver.weather AS w ON f.origin = w.origin AND f.time_hour = w.time_hour
)

SELECT
    weather,
    count(*) AS flights,
    count(*) FILTER (WHERE cancelled) AS cancelled,
    round(100.0 * count(*) FILTER (WHERE cancelled) / count(*), 1) AS cancelled_percent,
    round(avg(dep_delay), 1) AS mean_departure_delay,
    CAST(median(dep_delay) AS DOUBLE) AS median_departure_delay
FROM observed
GROUP BY weather
